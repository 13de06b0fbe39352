"""Writes a label map; see `yt8m_gat.data.label_space`."""

from collections.abc import Sequence

from yt8m_gat.cli import CommandParser
from yt8m_gat.config import ConfigError
from yt8m_gat.data.label_space import ontology_map, verticals_map
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.untrusted import print_error

PATHS = {
    "vocabulary": input_path,
    "ontology": input_path,
    "class_labels": input_path,
    "output": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser("label-space", "Writes a label map, for --label_map of train.")
    commands = parser.add_subparsers(dest="command", required=True)
    verticals = commands.add_parser("verticals", help="YouTube-8M: the verticals of each class")
    verticals.add_argument("--vocabulary", required=True, help="vocabulary.csv of YouTube-8M")
    ontology = commands.add_parser("ontology", help="AudioSet: each class and all its ancestors")
    ontology.add_argument("--ontology", required=True, help="ontology.json of AudioSet")
    ontology.add_argument(
        "--class_labels", required=True, help="class_labels_indices.csv of AudioSet"
    )
    for command in (verticals, ontology):
        command.add_argument("--output", required=True, help="the CSV file to write")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        read_paths(arguments, PATHS)
        names = {"verticals": ("vocabulary",), "ontology": ("ontology", "class_labels")}
        inputs = {
            getattr(arguments, name): f"the file of --{name}" for name in names[arguments.command]
        }
        require_own_files({"--output": arguments.output}, inputs)
        if arguments.command == "verticals":
            label_map = verticals_map(arguments.vocabulary)
        else:
            label_map = ontology_map(arguments.ontology, arguments.class_labels)
        label_map.save(arguments.output)
    except (ConfigError, OSError) as error:
        print_error(parser.prog, error)
        return 2
    print(
        f"{arguments.output}: {label_map.num_sources} source classes, {label_map.num_targets} "
        f"target classes, {len(label_map.pairs)} pairs"
    )
    return 0
