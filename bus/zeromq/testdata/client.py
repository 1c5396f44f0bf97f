#!/usr/bin/env python3
"""Submit a job to an agent of cbsdmq over ZeroMQ and print its replies.

    client.py ADDRESS TUBE REPLY_TUBE_PREFIX BODY [AGENT_KEY PUBLIC_KEY SECRET_KEY]

BODY is a job without JobID, in JSON. The three keys are for CURVE. One reply a
line, the last one has Progress 100. docs/WIRE.md says what the frames are.
"""
import json
import random
import sys
import time

import zmq

PATIENCE = 60  # seconds without a word from the agent
WAIT = 2000  # milliseconds; an agent that was started again has forgotten what it was asked


def ulid():
    n = int(time.time() * 1000) << 80 | random.SystemRandom().getrandbits(80)
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[n >> 5 * i & 31] for i in reversed(range(26)))


def main(address, tube, prefix, body, *keys):
    socket = zmq.Context().socket(zmq.DEALER)
    socket.linger = 1000
    socket.heartbeat_ivl = 1000
    socket.heartbeat_timeout = 3000
    if keys:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (k.encode() for k in keys)
    socket.connect(address)
    count = 0

    def ask(verb, *args):
        """Return the answer to a request: its word, and what follows. Asks again until there is one."""
        nonlocal count
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            count += 1
            ref = b"%d" % count
            socket.send_multipart([verb, ref, *args])
            again = time.monotonic() + 2 * WAIT / 1000
            while socket.poll(max(0, 1000 * (again - time.monotonic()))):
                answer = socket.recv_multipart()
                if answer[1] == ref:
                    if answer[0] == b"ERR":
                        sys.exit("error: " + b": ".join(answer[2:]).decode())
                    return answer[0], answer[2:]
            if verb == b"PUT":
                socket.send_multipart([b"STOP", b"-", ref])
        sys.exit("no cbsdmq agent answers at " + address)

    job = json.loads(body)
    job["JobID"] = random.randrange(1 << 52, 1 << 53)
    job["cbsdmq"] = {"v": 1, "id": ulid()}  # put again, it is the same job
    mailbox = (prefix + str(job["JobID"])).encode()

    # Answered when the job is in the journal of the agent.
    ask(b"PUT", tube.encode(), b"0", json.dumps(job).encode())

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        word, frames = ask(b"GET", b"%d" % WAIT, b"1", b"0", mailbox)
        if word == b"MSG":
            _, number, _, _, reply = frames
            print(reply.decode(), flush=True)
            ask(b"ACK", number)
            if json.loads(reply)["Progress"] == 100:
                return
            end = time.monotonic() + PATIENCE
    sys.exit("no reply within %d seconds" % PATIENCE)


main(*sys.argv[1:])
