"""`python -P -m chainrule_server.offline.predict MODEL.safetensors`: predictions of a model file, without a server.

The question is a PredictRequest, the answer {"response": a serialized PredictResponse in base64}; see `answering`.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

from chainrule.v1 import model_service_pb2 as api
from chainrule_server.errors import DamagedFile, InvalidRequest, NotFound
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.prediction import predict
from chainrule_server.models.trained_model import read_model
from chainrule_server.offline.answering import answer


def main() -> int:
    """Write the predictions; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.predict")
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model

    def answer_to(request: api.PredictRequest) -> dict[str, Any]:
        try:
            model = read_model(path)
        except NotFound:
            raise InvalidRequest([(str(path), "there is no such file")]) from None
        except DamagedFile as error:
            raise InvalidRequest([(str(path), str(error))]) from None
        return {"response": base64.b64encode(predict(model, request, Stop()).SerializeToString()).decode()}

    return answer(api.PredictRequest, answer_to)


if __name__ == "__main__":
    sys.exit(main())
