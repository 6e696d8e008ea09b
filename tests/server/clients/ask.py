"""Asks a server with the client that openapi-python-client made; run by tests/server/test_generated_clients.py.

ask.py ADDRESS TOKEN PICTURE
"""

import io
import json
import sys
from pathlib import Path

from image2sentence_client import AuthenticatedClient
from image2sentence_client.api.gallery import thumbnail
from image2sentence_client.api.search import search, search_json
from image2sentence_client.models import Problem, SearchAnswer, SearchFields, SearchForm
from image2sentence_client.types import File

address, token, picture = sys.argv[1:]
with AuthenticatedClient(base_url=address, token=token) as client:
    sent = File(io.BytesIO(Path(picture).read_bytes()), Path(picture).name)
    with_file = search.sync(
        client=client, body=SearchForm(picture=sent, text="in red", not_text=["blue", "dots"], k=3)
    )
    assert isinstance(with_file, SearchAnswer), with_file
    first = with_file.results[0].id
    with_item = search_json.sync(
        client=client, body=SearchFields(item=first, text="in red", not_item=[], k=3)
    )
    assert isinstance(with_item, SearchAnswer), with_item
    refused = search_json.sync(client=client, body=SearchFields(item=999_999))
    assert isinstance(refused, Problem), refused
    small = thumbnail.sync(number=first, client=client)
    assert isinstance(small, File), small
    answers = {
        "form": [one.id for one in with_file.results],
        "json": [one.id for one in with_item.results],
        "sentence": with_file.sentence,
        "refused": refused.error,
        "thumbnail": small.payload.read()[:3].hex(),
    }
print(json.dumps(answers))
