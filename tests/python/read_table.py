"""Reads a table of ours with programs of others and prints what each found, one JSON line a reader.

    read_table.py ENDPOINT LOCATION [PLAIN_FILE]

LOCATION is a Delta table (a folder, or s3:// at the endpoint); PLAIN_FILE is a Parquet file beside it. Each line has
the rows, the different values of the last but one column (the time) and the sum of the last (how many were observed).
"""

import json
import sys
from pathlib import Path

import deltalake
import duckdb
import duckdb_extension_delta
import duckdb_extension_httpfs
import polars

endpoint, location = sys.argv[1:3]
plain = sys.argv[3] if len(sys.argv) > 3 else None
options = {
    "aws_endpoint": endpoint,
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
    "aws_region": "us-east-1",
    "aws_allow_http": "true",
} if location.startswith("s3://") else {}


def say(reader, columns, rows, times, observed):
    print(json.dumps({"reader": reader, "columns": columns, "rows": rows, "times": times, "observed": observed}))


# The extensions come as packages, since a test fetches nothing.
duck = duckdb.connect(config={"allow_unsigned_extensions": "true"})
for package, name in ((duckdb_extension_httpfs, "httpfs"), (duckdb_extension_delta, "delta")):
    found = Path(package.__file__).parent.glob(f"extensions/*/{name}.duckdb_extension")
    duck.execute(f"LOAD '{next(found)}'")
if options:
    host = endpoint.split("//")[1]
    duck.execute(
        "CREATE SECRET (TYPE s3, KEY_ID 'testing', SECRET 'testing', REGION 'us-east-1',"
        f" ENDPOINT '{host}', USE_SSL false, URL_STYLE 'path')"
    )


def ask_duck(reader, source):
    columns = [column[0] for column in duck.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    time, observed = columns[-2:]
    query = f"SELECT count(*), count(DISTINCT {time}), sum({observed}) FROM {source}"
    rows, times, steps = duck.execute(query).fetchone()
    say(reader, columns, rows, times, int(steps or 0))


ask_duck("duckdb", f"delta_scan('{location}')")

frame = polars.scan_delta(location, storage_options=options).collect()
time, observed = frame.columns[-2:]
say("polars", frame.columns, frame.height, frame[time].n_unique(), int(frame[observed].sum()))

table = deltalake.DeltaTable(location, storage_options=options)
files = table.file_uris()
columns = [field.name for field in table.schema().fields]
adds = polars.DataFrame(table.get_add_actions(flatten=True))
say("deltalake", columns, int(adds["num_records"].sum()), len(files), int(adds["num_records"].sum()))

if plain:
    ask_duck("plain", f"read_parquet('{plain}')")
