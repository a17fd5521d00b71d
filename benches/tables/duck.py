"""Answers questions in SQL over Parquet files with DuckDB, and says what they cost.

    duck.py shipped|cache

The first line it reads names the files of each table, every other one is a list of questions. With `cache` footers are
kept between questions (parquet_metadata_cache), which is off as DuckDB is shipped.
"""

import json
import resource
import sys
import time

import duckdb

duck = duckdb.connect()
if sys.argv[1] == "cache":
    duck.execute("SET parquet_metadata_cache = true")
for name, files in json.loads(sys.stdin.readline()).items():
    duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({json.dumps(files)})")


def used():
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


for line in sys.stdin:
    cpu, wall = used(), time.perf_counter()
    answers = [duck.execute(question).fetchall() for question in json.loads(line)]
    cpu, wall = used() - cpu, time.perf_counter() - wall
    answers = [[[str(cell) for cell in row] for row in answer] for answer in answers]
    print(json.dumps({"cpu": cpu, "wall": wall, "answers": answers}), flush=True)
