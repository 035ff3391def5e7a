"""Showing the model a picture.

An image is data: bytes, base64, a file, or a URL that the provider fetches. Each adapter writes it the way
its provider wants it; here a loopback server tells what arrived.

Prints:

    the model got: text, image_url
    the picture came as: data:image/png;base64,iVBORw0KGgo...
    A single red pixel.
"""

import base64
import tempfile
from pathlib import Path

import allm_actors as allm
from allm_actors.data import ImagePart
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer

RED_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, FakeServer(script=["A single red pixel."]) as server:
        path = Path(folder, "pixel.png")
        path.write_bytes(RED_PIXEL)
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")

        question = allm.Message(
            role="user",
            content=[
                allm.TextPart(text="What is in this picture?"),
                ImagePart(image=allm.Image.from_file(path), detail="low"),
            ],
        )
        response = allm.generate(engine, question)

        text, picture = server.requests[0].json["messages"][0]["content"]
        print(f"the model got: {text['type']}, {picture['type']}")
        print(f"the picture came as: {picture['image_url']['url'][:33]}...")
        print(response.text)


if __name__ == "__main__":
    main()
