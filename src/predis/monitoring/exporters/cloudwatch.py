"""Amazon CloudWatch, by ``PutMetricData``: at most 1,000 metrics and 1 MB a request.

Counters are sent as what was added. Histograms go as the values and counts that the API takes, one for each bucket that something
fell into, so that CloudWatch's own percentiles work. Region, credentials and, where it is not Amazon's, the endpoint
(``AWS_ENDPOINT_URL_CLOUDWATCH``) come from AWS's usual places.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from predis.errors import InvalidInput, InvalidSetting, MissingExtra, Unavailable
from predis.monitoring.exporters.batch import Batch, Exporter, Sample, Tags
from predis.monitoring.exporters.histograms import spread
from predis.monitoring.exporters.naming import tags_of
from predis.settings import Settings

METRICS = 1_000
BYTES = 900_000  # of the 1 MB, as reckoned by _size
DIMENSIONS = 30
_LONGEST = 1_024
_UNITS = {"seconds": "Seconds", "bytes": "Bytes"}
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_RETRIED = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "InternalServiceFault",
    "ServiceUnavailable",
}

Datum = dict[str, Any]


class CloudWatch(Exporter[list[Datum]]):
    """Puts metrics into one namespace.

    Raises:
        MissingExtra: boto3 is not installed.
        InvalidSetting: AWS's settings name no region.
    """

    name = "cloudwatch"

    def __init__(self, namespace: str, *, tags: Tags = (), timeout_s: float = 5.0) -> None:
        super().__init__()
        self._namespace = namespace
        self._tags = tags
        self._client = _client(timeout_s)

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> CloudWatch:
        tags, timeout_s = tags_of(settings.export_tags), settings.export_timeout_s
        return cls(settings.cloudwatch_namespace, tags=tags, timeout_s=timeout_s)

    def encode(self, batch: Batch) -> Iterator[list[Datum]]:
        part: list[Datum] = []
        held = 0
        for sample in batch.samples:
            if sample.idle or not all(map(math.isfinite, sample.delta)):
                continue
            datum = self._datum(sample, at_ns=batch.at_ns)
            size = _size(datum)
            if part and (len(part) == METRICS or held + size > BYTES):
                yield part
                part, held = [], 0
            part.append(datum)
            held += size
        if part:
            yield part

    def deliver(self, request: list[Datum]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            self._client.put_metric_data(Namespace=self._namespace, MetricData=request)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            code = error.response.get("Error", {}).get("Code", "")
            message = f"CloudWatch answered {status} {code}"
            if status >= 500 or status == 429 or code in _RETRIED:
                raise Unavailable(message) from None
            raise InvalidInput(message) from None
        except NoCredentialsError:
            raise Unavailable(
                "there are no AWS credentials; give this process a role, or a profile"
            ) from None
        except BotoCoreError as error:
            raise Unavailable(f"CloudWatch does not answer: {error}") from None

    def close(self) -> None:
        self._client.close()

    def _datum(self, sample: Sample, *, at_ns: int) -> Datum:
        metric = sample.metric
        datum: Datum = {
            "MetricName": metric.name,
            "Dimensions": _dimensions((*self._tags, *sample.labels)),
            "Timestamp": datetime.fromtimestamp(at_ns / 1e9, UTC),
            "Unit": _UNITS.get(metric.unit, "None" if metric.kind == "gauge" else "Count"),
        }
        if metric.kind == "histogram":
            pairs = spread(metric.buckets, sample.delta)
            datum["Values"] = [value for value, _ in pairs]
            datum["Counts"] = [float(count) for _, count in pairs]
        else:
            datum["Value"] = sample.delta[0]
        return datum


def _dimensions(pairs: Tags) -> list[dict[str, str]]:
    """Names and values as the API takes them: printable ASCII, not empty. What has no value is left out."""
    return [
        {"Name": name.lstrip(":")[:255], "Value": _NOT_PRINTABLE.sub("_", value)[:_LONGEST]}
        for name, value in pairs[:DIMENSIONS]
        if value.strip()
    ]


def _size(datum: Datum) -> int:
    """Bytes it takes in a request, reckoned from above: as a form, the longest of the encodings that boto3 has used."""
    dimensions = sum(100 + len(one["Name"]) + 3 * len(one["Value"]) for one in datum["Dimensions"])
    return 250 + dimensions + 140 * len(datum.get("Values", ()))


def _client(timeout_s: float) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import NoRegionError
    except ImportError:
        raise MissingExtra.of("boto3", "cloudwatch") from None
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
    try:
        return boto3.client("cloudwatch", config=config)
    except NoRegionError:
        raise InvalidSetting("the exporter cloudwatch needs a region: set AWS_REGION") from None
