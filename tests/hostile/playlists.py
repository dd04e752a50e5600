"""Playlists, manifests and films that name other files, under the names of videos."""

from __future__ import annotations

import struct

from .cases import Bench, Case
from .media import uses_of

__all__ = ["playlists"]

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".wmv", ".flv", ".ogv", ".3gp", ".mts",
".gif", ".m2ts",
            ".mxf", ".vob")  # fmt: skip
LEADS = (
    "",
    "\ufeff",
    "\n\n",
    "  \t",
    "\0",
    "ID3\x03\0\0\0\0\0\0",
    "# comment\n",
    "<?xml version='1.0'?>\n",
    "<!-- x -->",
    " " * 5000,
)
MPD = (
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S" minBufferTime="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="16" height="16">{inner}'
    "</Representation></AdaptationSet></Period></MPD>"
)
CPL = (
    '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:1</Id>'
    "<EditRate>25 1</EditRate><SegmentList><Segment><SequenceList><MainImageSequence><ResourceList><Resource>"
    "<TrackFileId>{target}</TrackFileId>"
    "</Resource></ResourceList></MainImageSequence></SequenceList></Segment></SegmentList></CompositionPlaylist>"
)
FORMS = (
    "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n",
    '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n',
    '#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n',
    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "#EXTM3U\n#EXT-X-BYTERANGE:100@0\n#EXTINF:4,\n{target}\n",
    "ffconcat version 1.0\nfile '{target}'\n",
    "ffconcat version 1.0\nfile {target}\nduration 4\nfile {target}\n",
    "file '{target}'\n",
    MPD.format(inner="<BaseURL>{target}</BaseURL>"),
    MPD.format(inner='<SegmentTemplate media="{target}" initialization="{target}" duration="4"/>'),
    MPD.format(inner='<SegmentList><Initialization sourceURL="{target}"/><SegmentURL media="{target}"/></SegmentList>'),
    '<!DOCTYPE MPD [<!ENTITY x SYSTEM "{target}">]>' + MPD.format(inner="<BaseURL>&x;</BaseURL>"),
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "v=0\r\ns=x\r\na=control:{target}\r\nm=video 0 RTP/AVP 96\r\n",
    CPL,
    '<AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><AssetList><Asset><ChunkList><Chunk><Path>{target}</Path>'
    "</Chunk></ChunkList></Asset></AssetList></AssetMap>",
    "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    '<smil><body><video src="{target}"/></body></smil>',
    '<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{target}</location></track>'
    "</trackList></playlist>",
    "[Reference]\r\nRef1={target}\r\n",
    "rtsp://127.0.0.1:1/{target}\n",
    "RTSPtext\r\n{target}\r\n",
    "{target}\n",
    "#!ffmeta\n;FFMETADATA1\n[CHAPTER]\nSTART=0\nEND=1\ntitle={target}\n",
    "import('{target}')\nv=VideoSource('{target}')\n",  # AviSynth and VapourSynth
    '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file://{target}">]><svg xmlns="http://www.w3.org/2000/svg">'
    '<image href="{target}"/>&x;</svg>',
    "push graphic-context\nimage over 0,0 0,0 '{target}'\npop graphic-context\n",
)
PLACES = (
    "{secret}", ".beside/secret.mp4", "./.beside/secret.mp4", "file:{secret}", "file://{secret}",
    "concat:{secret}|{secret}",
    "subfile,,start,0,end,0,,:{secret}", "crypto+file:{secret}", "http://127.0.0.1:9/x.mp4",
    "https://example.com/x.mp4",
    "tcp://127.0.0.1:9", "udp://127.0.0.1:9", "rtmp://127.0.0.1:9/x", "/etc/passwd", "file:///etc/passwd", "pipe:0",
    "cache:{secret}",
    "data:video/mp4;base64,AAAA", "async:{secret}", "tee:{secret}", "ftp://127.0.0.1:9/x", "gopher://127.0.0.1:9/x",
    "//127.0.0.1/x/x.mp4",
    "md5:made/x", "unix:made/x", "hls+file://{secret}", "lavfi:movie={secret}", "bluray:{secret}", "fd:3",
    "\\\\127.0.0.1\\x\\x.mp4",
)  # fmt: skip


def playlists(bench: Bench) -> Case:
    """One of the forms, which names a file beside it that must not be opened, or an address that must not be called."""
    secret = str(bench.beside / bench.chance.choice(("secret.mp4", "secret.ts", "secret.txt")))
    place = PLACES[bench.number // len(FORMS) % len(PLACES)].replace("{secret}", secret)
    name = f"{bench.number}{bench.chance.choice(SUFFIXES)}"
    if bench.number % 10 == 9:
        name, content = _film(bench, secret)
    else:
        text = FORMS[bench.number % len(FORMS)].replace("{target}", place)
        text = bench.chance.choice((*LEADS, *[""] * 15)) + text
        content = text.encode(bench.chance.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "utf-16-be")))
    if bench.chance.random() < 0.06:  # a sequence of pictures, or what FFmpeg takes for an option or a protocol
        endings = (
            "%03d.png",
            "%d.jpg",
            "*.png",
            "concat:a.mp4",
            "-i.mp4",
            "a%d.mp4",
            "file:a.mp4",
            "|a.mp4",
            "http:a.mp4",
            "a?x=1.mp4",
        )
        name = f"{bench.number}{bench.chance.choice(endings)}"
        (bench.folder / f"{bench.number}001.png").symlink_to(bench.beside / "secret.txt")
        (bench.folder / f"{bench.number}1.jpg").symlink_to(bench.beside / "secret.txt")
    path = bench.folder / name
    path.write_bytes(content)
    return uses_of(path, bench, commands=8)


def _film(bench: Bench, secret: str) -> tuple[str, bytes]:
    """A film that says that its pictures lie in another file, or links to other segments."""
    if bench.chance.random() < 0.3:
        location = secret.encode() + b"\0"
        reference = _box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(location)) + location)
        movie = _box(b"moov", _box(b"rmra", _box(b"rmda", reference)))
        return f"{bench.number}.mov", _box(b"ftyp", b"qt  \0\0\0\0qt  ") + movie
    content = bench.material.small
    entry = bench.chance.choice(
        (_url(secret), _url(f"file://{secret}"), _url("http://127.0.0.1:9/x.mp4"), _alias(secret))
    )
    new = _box(b"dref", b"\0\0\0\0\0\0\0\x01" + entry)
    at = content.rfind(b"moov") - 4
    head, movie = content[:at], content[at:]
    return f"{bench.number}.mov", head + _replaced(movie, new)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def _url(location: str) -> bytes:
    return _box(b"url ", b"\0\0\0\0" + location.encode() + b"\0")


def _alias(secret: str) -> bytes:
    """An alias of classic Mac OS with an absolute path, as QuickTime films have it."""
    path = secret.encode()
    record = (
        bytes(8)
        + struct.pack(">H", 0)
        + b"\x04disk"
        + bytes(23)
        + bytes(12)
        + b"\x0asecret.mp4"
        + bytes(53)
        + bytes(16)
    )
    record += struct.pack(">HHhh", 2, 0, 0, 0)[:2] + struct.pack(">H", len(path)) + path + struct.pack(">hH", -1, 0)
    return _box(b"alis", b"\0\0\0\0" + record)


def _replaced(boxes: bytes, new: bytes) -> bytes:
    """The boxes with each `dref` in them replaced."""
    out, at = b"", 0
    while at + 8 <= len(boxes):
        size, name = struct.unpack_from(">I4s", boxes, at)
        if size < 8:
            return out + boxes[at:]
        inner = boxes[at + 8 : at + size]
        if name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            out += _box(name, _replaced(inner, new))
        else:
            out += new if name == b"dref" else boxes[at : at + size]
        at += size
    return out
