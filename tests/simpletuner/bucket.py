"""A bucket for a real SimpleTuner: as much of S3 as its data loader and its publisher ask for, kept in memory."""

import http.server
import threading
import urllib.parse
import xml.sax.saxutils


class Bucket:
    """Listens on loopback. Whoever asks for a bucket whose name ends in `refused` is told so, with all that they said."""

    def __init__(self):
        self.objects, self.asked = {}, []
        bucket = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", kind="application/xml", length=None):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.send_header("ETag", '"0"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def refused(self):
                quoted = xml.sax.saxutils.escape
                headers = " ".join(f"{name}={value}" for name, value in self.headers.items())
                said = f"{self.command} {urllib.parse.unquote(self.path)} is not for you: {headers}"
                return f"<Error><Code>InvalidAccessKeyId</Code><Message>{quoted(said)}</Message></Error>".encode()

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                address = urllib.parse.urlsplit(self.path)
                path = urllib.parse.unquote(address.path).strip("/")
                bucket.asked.append((self.command, path, str(self.headers)))
                name, _, key = path.partition("/")
                if name.endswith("refused"):
                    return self.answer(403, self.refused())
                if self.command == "PUT":
                    bucket.objects[path] = self.without_chunks(body)
                    return self.answer(200)
                if self.command == "DELETE":
                    bucket.objects.pop(path, None)
                    return self.answer(204)
                if not key and self.command == "GET":
                    return self.answer(200, self.listed(name, address.query))
                if not key:
                    return self.answer(200)
                if path not in bucket.objects:
                    return self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
                stored = bucket.objects[path]
                self.answer(200, stored, "application/octet-stream", len(stored))

            do_HEAD = do_PUT = do_DELETE = do_POST = do_GET

            def without_chunks(self, body):
                if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
                    return body
                whole = b""
                while body:
                    size, _, body = body.partition(b"\r\n")
                    size = int(size.split(b";")[0] or b"0", 16)
                    if not size:
                        break
                    whole, body = whole + body[:size], body[size + 2:]
                return whole

            def listed(self, name, query):
                prefix = urllib.parse.parse_qs(query).get("prefix", [""])[0]
                keys = [path.partition("/")[2] for path in sorted(bucket.objects) if path.startswith(f"{name}/{prefix}")]
                entry = ("<Contents><Key>{}</Key><Size>{}</Size><ETag>0</ETag>"
                         "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>")
                listed = "".join(entry.format(xml.sax.saxutils.escape(key), len(bucket.objects[f"{name}/{key}"])) for key in keys)
                return (f"<ListBucketResult><Name>{name}</Name><Prefix>{xml.sax.saxutils.escape(prefix)}</Prefix>"
                        f"<KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>").encode()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
