"""Asks Spark, with two executors that are processes of their own, about one version of a table of ours.

    spark.py TABLE VERSION STATEMENT

TABLE is the folder `training_steps` or `validation_prompts` of a store. The files of the version come from the table's
log by the deltalake package, so that Spark needs no package for Delta: it reads exactly these Parquet files, under the
table's name. Prints rows as JSON, with the tasks that each executor has done.
"""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import deltalake
import pyspark
from pyspark.sql import SparkSession

table, version, statement = sys.argv[1:4]
files = deltalake.DeltaTable(table, version=int(version)).file_uris()

# Executors find Spark's own files by this.
os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
settings = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.port": "0",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
}
# Two workers on this machine, a core and a gigabyte each.
builder = SparkSession.builder.appName("stepcast").master("local-cluster[2,1,1024]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")

spark.read.parquet(*files).createOrReplaceTempView(Path(table).name)
began = time.monotonic()
rows = [list(row) for row in spark.sql(statement).collect()]
seconds = time.monotonic() - began

address = f"{spark.sparkContext.uiWebUrl}/api/v1/applications/{spark.sparkContext.applicationId}/executors"
with urllib.request.urlopen(address, timeout=30) as answer:
    executors = {each["id"]: each["completedTasks"] for each in json.load(answer) if each["id"] != "driver"}
spark.stop()
print(json.dumps({"version": spark.version, "rows": rows, "seconds": seconds, "executors": executors}))
