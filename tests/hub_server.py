"""A server on this machine that speaks what pixelq uses of the hub's API, as `huggingface_hub` expects it."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_tests"
USER = "tester"


class Hub:
    """Models with their revisions, each a dictionary of files; and everything that was asked."""

    def __init__(self):
        self.models = {}  # name -> [(commit, {path: bytes})], the newest last
        self.private = set()
        self.blobs = {}
        self.asked = []
        self.lies = {}  # path -> the size that is said
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, model, files):
        """A new revision with these files beside those that are there; returns its name."""
        revisions = self.models.setdefault(model, [])
        whole = {**(revisions[-1][1] if revisions else {}), **files}
        number = f"{model}{len(revisions)}{sorted(whole)}"
        revisions.append((hashlib.sha1(number.encode()).hexdigest(), whole))
        return revisions[-1][0]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def _answer(self, status, value=None, code=None, headers=None, body=None):
        data = body if body is not None else json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _who(self):
        """The user, None if nobody; an unknown token is "?"."""
        sent = self.headers.get("authorization")
        return None if sent is None else USER if sent == f"Bearer {TOKEN}" else "?"

    def do_GET(self):
        self.hub.asked.append((self.command, self.path))
        if self.path == "/api/whoami-v2":
            if self._who() != USER:
                return self._answer(401, {"error": "Invalid user token."})
            return self._answer(200, {"name": USER, "type": "user", "orgs": [], "auth": {}})
        match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        if match:
            return self._file(*match.groups())
        return self._answer(404, {"error": "no such address"})

    do_HEAD = do_GET

    def _file(self, model, revision, path):
        revisions = self.hub.models.get(model)
        if not revisions or (model in self.hub.private and self._who() != USER):
            return self._answer(404 if self._who() else 401, code="RepoNotFound")
        found = revisions[-1:] if revision == "main" else [one for one in revisions if one[0] == revision]
        if not found:
            return self._answer(404, code="RevisionNotFound")
        commit, files = found[0]
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            return self._answer(404, code="EntryNotFound", headers=headers)
        data = files[path]
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        if path in self.hub.lies:
            headers["Content-Length"] = str(self.hub.lies[path])
        return self._answer(200, headers=headers, body=data)

    def do_POST(self):
        self.hub.asked.append((self.command, self.path))
        body = self._body()
        if self._who() != USER:
            return self._answer(401, {"error": "Invalid user token."})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return self._answer(200, {"errors": [], "warnings": []})
        match = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", self.path)
        if match and match[2] == "preupload":
            modes = [
                {"path": one["path"], "uploadMode": "regular" if one["path"].endswith(("md", "json")) else "lfs"}
                for one in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": [{**one, "shouldIgnore": False} for one in modes]})
        if match:
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        return self._answer(404, {"error": "no such address"})

    def _create(self, wanted):
        model = f"{wanted.get('organization') or USER}/{wanted['name']}"
        if not model.startswith(f"{USER}/"):
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        there = model in self.hub.models
        self.hub.models.setdefault(model, [])
        if not there and "private" in (wanted.get("visibility"), wanted.get("private") and "private"):
            self.hub.private.add(model)
        return self._answer(409 if there else 200, {"url": f"{self.hub.url}/{model}"})

    def _commit(self, model, lines):
        files = {}
        for line in lines[1:]:
            value = line["value"]
            whole = line["key"] == "file"
            files[value["path"]] = base64.b64decode(value["content"]) if whole else self.hub.blobs[value["oid"]]
        commit = self.hub.commit(model, files)
        url = f"{self.hub.url}/{model}/commit/{commit}"
        return self._answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def do_PUT(self):
        data = self._body()
        name = self.path.split("/")[-1]
        if hashlib.sha256(data).hexdigest() != name:
            return self._answer(400, {"error": "another file"})
        self.hub.blobs[name] = data
        return self._answer(200)
