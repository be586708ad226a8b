"""A plain loop of boto3, as people write it: `python boto3_loop.py up|down FOLDER BUCKET PREFIX`, one file after the other."""

from __future__ import annotations

import sys
from pathlib import Path

import boto3

way, folder, bucket, prefix = sys.argv[1:]
client = boto3.client("s3")
if way == "up":
    for path in sorted(Path(folder).iterdir()):
        client.upload_file(str(path), bucket, prefix + path.name)
else:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page["Contents"]:
            client.download_file(bucket, one["Key"], str(Path(folder, one["Key"].rpartition("/")[2])))
