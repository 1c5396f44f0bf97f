#!/usr/bin/env python3
# submit.py HOST PORT TUBE JOB: put a job on a pool's tube, print its output, end with its status
import json, socket, sys

host, port, tube, job = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].encode()
f = socket.create_connection((host, port)).makefile("rwb")

def ask(line, body=None):
    f.write(line.encode() + b"\r\n" + (b"" if body is None else body + b"\r\n"))
    f.flush()
    return f.readline().split()

ask("use " + tube)
inserted = ask("put 1 0 60 %d" % len(job), job)
ask("watch %s_result_id%d" % (tube, int(inserted[1])))
while True:
    reserved = ask("reserve")
    reply = json.loads(f.read(int(reserved[2]) + 2))
    ask("delete %d" % int(reserved[1]))
    print(reply["Message"], end="")
    if reply["Progress"] >= 100:
        sys.exit(reply["ErrCode"])
