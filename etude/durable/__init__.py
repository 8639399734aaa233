"""The only door for writing files, and the one for reading files that may come from a stranger."""

from etude.durable.appending import Appender, make_sized, sync_file, write_at
from etude.durable.calls import FaultPlan, faults
from etude.durable.folders import (
    cache_folder,
    cache_root,
    check_name,
    check_own_file,
    check_own_folder,
    inside,
    lock,
    make_folder,
    new_folder,
    open_lock,
    remove_folder,
    remove_unheld,
    rename_folder,
    sync_folder,
    temporary_folder,
)
from etude.durable.reading import (
    LARGEST_JSON_BYTES,
    check_plain,
    content_key,
    is_plain,
    is_sampled,
    is_written,
    name_encoding,
    open_plain,
    parse_json,
    read_bytes,
    read_json,
    read_json_object,
    read_text,
    sha256_file,
    why_not_utf8,
)
from etude.durable.writing import (
    Written,
    remove_file,
    remove_leftovers,
    write_file,
    write_json,
    write_new_files,
    write_once,
)

__all__ = [
    "LARGEST_JSON_BYTES", "Appender", "FaultPlan", "Written", "cache_folder", "cache_root", "check_name",
    "check_own_file", "check_own_folder", "check_plain", "content_key", "faults", "inside", "is_plain",
    "is_sampled", "is_written", "lock", "make_folder", "make_sized", "name_encoding", "new_folder",
    "open_lock", "open_plain",
    "parse_json", "read_bytes", "read_json", "read_json_object", "read_text", "remove_file",
    "remove_folder", "remove_leftovers", "remove_unheld", "rename_folder", "sha256_file", "sync_file",
    "sync_folder", "temporary_folder", "why_not_utf8", "write_at", "write_file", "write_json",
    "write_new_files", "write_once",
]  # fmt: skip
