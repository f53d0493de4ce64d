"""A hub on this machine: the few answers of a server that huggingface_hub asks for to load and to publish models."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class FakeHub(ThreadingHTTPServer):
    """Repositories as lists of commits, each with all its files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories = {}  # {name: [(commit, {file: bytes})]}
        self.asked = []  # the paths of all requests

    def commit(self, repository, files):
        """Add a commit that changes some files."""
        commits = self.repositories.setdefault(repository, [])
        content = {**(commits[-1][1] if commits else {}), **files}
        commits.append((hashlib.sha1(repr((len(commits), content)).encode()).hexdigest(), content))
        return commits[-1][0]


class Answers(BaseHTTPRequestHandler):
    """Answers requests from the repositories of the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        match self._words():
            case ["api", "models", user, name]:
                self._about(f"{user}/{name}", "main")
            case ["api", "models", user, name, "revision", revision]:
                self._about(f"{user}/{name}", revision)
            case [user, name, "resolve", revision, *file]:
                content = dict(self.server.repositories[f"{user}/{name}"])[revision]["/".join(file)]
                self._answer(content, X_Repo_Commit=revision, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self._words():
            case ["api", "validate-yaml"]:
                self._answer({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                request = json.loads(body)
                name = f"{request['organization']}/{request['name']}"
                if name not in self.server.repositories:
                    self.server.commit(name, {".gitattributes": b""})
                self._answer({"url": f"{self.server.url}/{name}"})
            case ["api", "models", _, _, "preupload", "main"]:
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                self._answer({"files": [{"path": file["path"], **mode} for file in json.loads(body)["files"]]})
            case ["api", "models", user, name, "commit", "main"]:
                files = [line["value"] for line in map(json.loads, body.splitlines()) if line["key"] == "file"]
                content = {file["path"]: base64.b64decode(file["content"]) for file in files}
                commit = self.server.commit(f"{user}/{name}", content)
                self._answer({"commitOid": commit, "commitUrl": f"{self.server.url}/{user}/{name}/commit/{commit}"})

    def _words(self):
        path = unquote(urlparse(self.path).path).strip("/")
        self.server.asked.append(path)
        return path.split("/")

    def _about(self, repository, revision):
        commits = self.server.repositories.get(repository)
        if commits is None:
            self._answer({}, 404, X_Error_Code="RepoNotFound")
            return
        commit = commits[-1][0] if revision == "main" else revision
        if commit not in dict(commits):
            self._answer({}, 404, X_Error_Code="RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in dict(commits)[commit]]
        self._answer({"id": repository, "sha": commit, "siblings": siblings})

    def _answer(self, body, status=200, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Write no log."""
