"""Records in, batches out."""

from yt8m_gat.data.dataset import as_pair, as_pairs, find_files, make_dataset
from yt8m_gat.data.description import RecordDescription, describe_record, discover
from yt8m_gat.data.diagnosis import bad_record_from, iterate
from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.parsing import parse_frame_batch, parse_video_batch
from yt8m_gat.data.preprocessing import normalize_features, preprocess
from yt8m_gat.data.quantization import dequantize, quantize
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.tfrecord import count_records, estimate_records

__all__ = [
    "BadRecordError",
    "RecordDescription",
    "RecordSchema",
    "as_pair",
    "as_pairs",
    "bad_record_from",
    "count_records",
    "dequantize",
    "describe_record",
    "discover",
    "estimate_records",
    "find_files",
    "iterate",
    "make_dataset",
    "normalize_features",
    "parse_frame_batch",
    "parse_video_batch",
    "preprocess",
    "quantize",
]
