"""An answer that is data: the schema of a pydantic model goes out, an instance of it comes back.

The provider is told the schema; pydantic still checks what the model wrote. A model that breaks its word is
an error of yours to handle, never a half-filled object.

Prints:

    Kyoto: 1.5 million people, temples and gardens
    not a city: population
"""

import pydantic

import allm_actors as allm
from allm_actors.providers import Fake


class City(pydantic.BaseModel):
    """What we want to know of a city."""

    name: str
    population: int
    sights: list[str]


ANSWERS = [
    '{"name": "Kyoto", "population": 1460000, "sights": ["temples", "gardens"]}',
    '{"name": "Atlantis", "population": "unknown", "sights": []}',
]

adapter = Fake(scripts=[[("text", answer), ("finish", "stop")] for answer in ANSWERS])
engine = allm.Engine(adapter=adapter, model="scripted")
as_a_city = allm.json_schema("city", City.model_json_schema())

for question in ("Tell me about Kyoto.", "And about Atlantis?"):
    response = allm.generate(engine, question, response_format=as_a_city)
    try:
        city = City.model_validate_json(response.require_text())
    except pydantic.ValidationError as error:
        print("not a city:", ", ".join(str(problem["loc"][0]) for problem in error.errors()))
    else:
        print(f"{city.name}: {city.population / 1e6:.1f} million people, {' and '.join(city.sights)}")
