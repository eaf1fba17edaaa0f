"""`python -P -m chainrule_server.offline.predict MODEL.safetensors`: predictions of a model file, without a server.

Standard input is a serialized PredictRequest. Standard output is one line of JSON: {"response": a serialized
PredictResponse in base64}; or {"violations": [[path, message], …]} and exit code 2, or {"failure": message} and exit
code 1.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from chainrule.v1 import model_service_pb2 as api
from chainrule_server.errors import DamagedFile, InvalidRequest, NotFound, WrongState
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.prediction import predict
from chainrule_server.models.trained_model import read_model

FAILED = 1
WRONG_INPUT = 2


def main() -> int:
    """Write the predictions; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.predict")
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model
    answer, code = answer_of(path, sys.stdin.buffer.read())
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


def answer_of(path: Path, question: bytes) -> tuple[dict[str, Any], int]:
    """What is written, and the exit code."""
    try:
        response = predict(read_model(path), api.PredictRequest.FromString(question), Stop())
    except DecodeError as error:
        return {"violations": [["", f"standard input is no PredictRequest: {error}"]]}, WRONG_INPUT
    except InvalidRequest as error:
        return {"violations": error.violations}, WRONG_INPUT
    except NotFound:
        return {"violations": [[str(path), "there is no such file"]]}, WRONG_INPUT
    except DamagedFile as error:
        return {"violations": [[str(path), str(error)]]}, WRONG_INPUT
    except WrongState as error:
        return {"failure": str(error)}, FAILED
    return {"response": base64.b64encode(response.SerializeToString()).decode()}, 0


if __name__ == "__main__":
    sys.exit(main())
