"""The prediction cache: the same rows, asked of the same version by the same tenant, are predicted once.

Off by default, on by an endpoint's configuration. What is answered from it is what the version said of these very rows: the key covers
tenant, model, the version's files and signature, and the bound input, not the bytes of a request. So JSON, binary tensors and gRPC
share entries, and no answer of one model can be given for another.

    config.py      what an endpoint's configuration says
    keys.py        which requests are the same
    values.py      outputs as bytes
    flights.py     who waits for a prediction that is already on its way
    endpoint.py    one endpoint's cache, in memory or in Valkey
    valkey.py      a connection that may be slow, dead or wrong without harm
    predictions.py all of a worker
"""

from predis.serving.cache.config import CacheConfig
from predis.serving.cache.endpoint import Asker, EndpointCache
from predis.serving.cache.keys import CacheKeys
from predis.serving.cache.predictions import PredictionCache
from predis.serving.cache.valkey import Valkey

__all__ = ["Asker", "CacheConfig", "CacheKeys", "EndpointCache", "PredictionCache", "Valkey"]
