"""Which commands may be answered from memory, and which change what is there.

A read may be kept if it names one key, depends on nothing else and changes nothing. ``MGET`` is a ``GET`` of each of its keys.
"""

from __future__ import annotations

# Each has its key as first argument; MGET all its keys.
_READS = """
    GET MGET GETRANGE STRLEN GETBIT BITCOUNT EXISTS TYPE
    HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN
    LRANGE LINDEX LLEN SMEMBERS SISMEMBER SMISMEMBER SCARD ZSCORE ZMSCORE ZCARD ZCOUNT
"""
READS = frozenset(_READS.split())

# Frequent commands that name keys and change none. Any that is not here is taken for a write, which costs a miss where it is none.
_HARMLESS = """
    PING TTL PTTL EXPIRETIME PEXPIRETIME SCAN HSCAN SSCAN ZSCAN KEYS DBSIZE INFO OBJECT DUMP ZRANGE ZREVRANGE ZRANGEBYSCORE
    ZREVRANGEBYSCORE ZRANK ZREVRANK SINTER SUNION SDIFF SRANDMEMBER HRANDFIELD ZRANDMEMBER XRANGE XREVRANGE XLEN XREAD GEOSEARCH
    GEOPOS GEODIST BITPOS PFCOUNT PUBLISH SPUBLISH
"""
CHANGE_NOTHING = READS.union(_HARMLESS.split())

# The server announces the first two, and says nothing of the third.
CHANGE_ALL = frozenset({"FLUSHALL", "FLUSHDB", "SWAPDB"})
