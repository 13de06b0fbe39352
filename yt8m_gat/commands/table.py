"""The commands of `yt8m-gat`, each with its line in `yt8m-gat --help`.

It uses only the standard library, so that `yt8m-gat --help` imports no command.
"""

# Section of the overview -> command -> what it does. Command `a-b` is module `commands/a_b.py`.
COMMANDS: dict[str, dict[str, str]] = {
    "Get records": {
        "extract": "make records of videos, with any picture and sound model",
        "pack": "write clips of videos as MediaSequence records, in JPEG",
        "download": "fetch the official YouTube-8M records, whole or in part",
        "sample": "write a generated sample in the same layout",
        "repack": "rewrite records as arrays of frames, which are read faster",
        "compose": "join short clips into long ones whose labels' seconds are known",
        "inspect": "say what records hold, and which cannot be read",
        "label-space": "write a label map: other classes than those of the records",
    },
    "Train and use a model": {
        "train": "train a model, or continue the run in --train_dir",
        "eval": "measure a run: clean, under attack, under corruptions",
        "attack-videos": "attack the pixels and the sound of video files",
        "calibrate": "fit the temperature of a run, and thresholds for its tags",
        "inference": "predict records or video files into a Kaggle CSV",
        "export": "write the model of a run as a SavedModel, to be served",
        "beam": "predict with an exported model on Apache Beam",
        "ensemble": "make one run of several: the mean of them, or of their weights",
        "archive": "pack the best model of a run into one file, and unpack it",
    },
    "Look at results": {
        "report": "draw runs and their evaluations as one HTML page",
        "explain": "show which frames speak for one label of one clip",
        "watch": "show what a run sees in one video file, second by second",
        "kaggle": "check, score and show a submission CSV",
        "demo": "all of the above in small, on a generated sample",
    },
}


def command_names() -> list[str]:
    """Returns all commands, in the order of the overview."""
    return [name for part in COMMANDS.values() for name in part]
