#!/usr/bin/env python3
"""Submit a job to an agent of cbsdmq over ZeroMQ and print its replies.

    client.py ADDRESS TUBE REPLY_TUBE_PREFIX BODY [AGENT_KEY PUBLIC_KEY SECRET_KEY]

BODY is a job without JobID, in JSON. The three keys are for CURVE. One reply a
line, the last one has Progress 100. docs/WIRE.md says what the frames are.
"""
import json
import random
import sys

import zmq

TIMEOUT = 30000  # milliseconds


def main(address, tube, prefix, body, *keys):
    socket = zmq.Context().socket(zmq.DEALER)
    socket.linger = 1000
    socket.heartbeat_ivl = 1000
    if keys:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (k.encode() for k in keys)
    socket.connect(address)

    def answer(ref):
        while True:
            if not socket.poll(TIMEOUT):
                sys.exit("no cbsdmq agent answers at " + address)
            frames = socket.recv_multipart()
            if frames[1] == ref:
                if frames[0] == b"ERR":
                    sys.exit("error: " + b": ".join(frames[2:]).decode())
                return frames

    job = json.loads(body)
    job["JobID"] = random.randrange(1 << 52, 1 << 53)
    mailbox = (prefix + str(job["JobID"])).encode()

    # Confirmed when the job is in the journal of the agent.
    socket.send_multipart([b"PUT", b"1", tube.encode(), b"0", json.dumps(job).encode()])
    answer(b"1")

    progress = 0
    while progress < 100:
        socket.send_multipart([b"GET", b"2", str(TIMEOUT).encode(), b"1", b"0", mailbox])
        frames = answer(b"2")
        if frames[0] != b"MSG":
            sys.exit("no reply within %d ms" % TIMEOUT)
        _, _, _, number, _, _, reply = frames
        print(reply.decode(), flush=True)
        progress = json.loads(reply)["Progress"]
        socket.send_multipart([b"ACK", b"3", number])
        answer(b"3")


main(*sys.argv[1:])
