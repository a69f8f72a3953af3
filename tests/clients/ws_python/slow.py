"""A client that stops reading and takes up again, on the `websockets` library and nothing of ours.

    .tools/venv/bin/python tests/clients/ws_python/slow.py URL TOKEN ROOM

The token allows to join and publish in the room. Until the server has given the reader up, another connection publishes
more than may wait for it. Then the reader reads: whole messages, and behind them the close frame that says why. Exit
code 0 when all of that held.
"""

import asyncio
import sys

from client import PATIENCE_S, Client, check
from websockets.exceptions import ConnectionClosed

# Within what a client may publish at once; far more than waits for one that does not read.
EVENTS = 39
PAYLOAD = {"text": "x" * 60_000}


async def story(url, token, room):
    # With room for one message the library soon reads no more from the socket.
    slow = await Client.open(url, token, max_queue=1)
    await slow.join(room)
    publisher = await Client.open(url, token)
    for _ in range(EVENTS):
        published = await publisher.publish(room, PAYLOAD)
        if not published.get("reached"):
            break
    else:
        check(False, "a reader that does not read is given up", published)

    read = 0
    try:
        while True:
            frame = await slow.receive()
            check(frame["event"]["payload"] == PAYLOAD, "what arrives is whole", frame)
            read += 1
    except ConnectionClosed:
        pass
    check(slow.socket.close_code == 4002, "it reads why it was closed", (slow.socket.close_code, read))
    check(slow.socket.close_reason == "slow_consumer", "in words, too", slow.socket.close_reason)
    check(read < EVENTS, "and not all that was published", read)
    await publisher.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(asyncio.wait_for(story(*sys.argv[1:]), PATIENCE_S * 2))
    except (AssertionError, TimeoutError, OSError) as error:
        sys.exit(f"ws_python: {type(error).__name__}: {error}")
    print("ws_python: stopped reading, took up again, read the close frame")
