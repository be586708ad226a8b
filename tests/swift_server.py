"""OpenStack Swift with its S3 interface, in one process: `python -I swift_server.py FOLDER`, by a Python that has it installed.

It prints its port when it answers. The folder's disk must know extended attributes.
"""

import os
import pwd
import sys

import eventlet
from swift.common import storage_policy, utils, wsgi
from swift.common.ring import RingBuilder

ACCOUNT, SECRET = "test:tester", "testing"  # tests/stores.py has them too
KINDS = ("account", "container", "object")
FILTERS = "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth slo dlo versioned_writes symlink"
COMMON = """[DEFAULT]
swift_dir = {folder}
devices = {folder}/disks
mount_check = false
user = {user}
log_address = /nonexistent
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = {pipeline}
[app:{app}]
use = egg:swift#{kind}
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
check_bucket_owner = false
max_upload_part_num = 10000
"""
POLICY = "[swift-hash]\nswift_hash_path_suffix = s\nswift_hash_path_prefix = p\n[storage-policy:0]\nname = gold\ndefault = yes\n"


def main(folder: str) -> None:
    os.makedirs(f"{folder}/disks/one")
    write(f"{folder}/swift.conf", POLICY)
    utils.eventlet_monkey_patch()
    utils.set_swift_dir(folder)
    storage_policy.reload_storage_policies()
    sockets = {kind: eventlet.listen(("127.0.0.1", 0), backlog=256) for kind in (*KINDS, "proxy")}
    for kind in KINDS:
        make_ring(folder, kind, sockets[kind].getsockname()[1])
    user = pwd.getpwuid(os.geteuid()).pw_name
    threads = []
    for kind, socket in sockets.items():
        pipeline = f"{FILTERS} {kind}-server" if kind == "proxy" else f"{kind}-server"
        text = COMMON.format(folder=folder, user=user, pipeline=pipeline, app=f"{kind}-server", kind=kind)
        for name in pipeline.split()[:-1]:
            text += "" if f"[filter:{name}]" in text else f"[filter:{name}]\nuse = egg:swift#{name}\n"
        write(f"{folder}/{kind}.conf", text)
        app = wsgi.loadapp(f"{folder}/{kind}.conf")
        threads.append(eventlet.spawn(eventlet.wsgi.server, socket, app, utils.NullLogger(), custom_pool=eventlet.GreenPool(256)))
    print(sockets["proxy"].getsockname()[1], flush=True)
    for thread in threads:
        thread.wait()


def make_ring(folder: str, kind: str, port: int) -> None:
    """One disk on one server holds all."""
    builder = RingBuilder(1, 1, 1)
    place = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "device": "one", **place})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
