"""The fake Hub's protocol: what each request is answered with, and what is refused."""

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml
from aiohttp import web

from tests.fake_hub_state import Commit, File, Repo, State, User, git_blob, tree_entry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATE = web.AppKey("state", State)
LICENCES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "odc-by", "unknown", "other", "llama3"}
LARGE = (".parquet", ".safetensors", ".arrow", ".bin", ".zip")


def routes() -> list[web.RouteDef]:
    """Every route. The catch-all answers as the Hub does to what it does not know."""
    api = "/api/{kind:datasets|models}/{owner}/{name}"
    found = [
        web.get("/api/whoami-v2", whoami),
        web.post("/api/repos/create", create_repo),
        web.post("/api/validate-yaml", validate_yaml),
        web.get(api, repo_info),
        web.get(api + "/revision/{revision}", repo_info),
        web.get(api + "/tree/{revision}", tree),
        web.get(api + "/tree/{revision}/{path:.*}", tree),
        web.post(api + "/paths-info/{revision}", paths_info),
        web.get(api + "/refs", refs),
        web.post(api + "/tag/{revision}", tag),
        web.post(api + "/preupload/{revision}", preupload),
        web.post(api + "/commit/{revision}", commit),
        web.put("/_lfs/{sha256}", put_object),
        web.put("/_lfs/{sha256}/{part}", put_part),
        web.post("/_lfs/{sha256}/complete", complete),
        web.post("/_lfs/{sha256}/verify", verify),
        web.get("/_cdn/{sha256}", cdn),
    ]
    for prefix in ("/{kind:datasets}", ""):
        found.append(web.post(prefix + "/{owner}/{name}.git/info/lfs/objects/batch", batch))
        found.append(web.get(prefix + "/{owner}/{name}/resolve/{revision}/{path:.*}", resolve))
    return found


def refused(status: int, message: str, code: str = "") -> web.HTTPException:
    """An error as the Hub words it."""
    kinds = {400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}
    kinds |= {409: web.HTTPConflict, 412: web.HTTPPreconditionFailed, 422: web.HTTPUnprocessableEntity}
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    error: web.HTTPException = kinds[status](
        headers=headers, text=json.dumps({"error": message}), content_type="application/json"
    )
    return error


def user_of(request: web.Request) -> User | None:
    """Whose token came; refuses one that is nobody's."""
    header = request.headers.get("Authorization", "")
    if not header:
        return None
    user = state_of(request).users.get(header.removeprefix("Bearer "))
    if user is None:
        raise refused(401, "Invalid credentials in Authorization header")
    return user


def state_of(request: web.Request) -> State:
    """The server's state."""
    return request.app[STATE]


def repo_of(request: web.Request, *, write: bool = False) -> Repo:
    """The repository of a request, if it may be seen or written."""
    user, info = user_of(request), request.match_info
    kind = "dataset" if info.get("kind", "models") == "datasets" else "model"
    repo = state_of(request).repos.get((kind, f"{info['owner']}/{info['name']}"))
    member = user is not None and info["owner"] in (user.name, *user.orgs)
    if repo is None or (repo.private and not member):
        raise refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
    if write and not (member and user is not None and user.writes):
        raise refused(403, "Forbidden: you must use a write token to upload to a repository.")
    return repo


def revision_of(request: web.Request, repo: Repo) -> Commit:
    """The revision of a request."""
    found = repo.at(request.match_info.get("revision", "main"))
    if found is None:
        raise refused(404, "Invalid rev id", "RevisionNotFound")
    return found


async def whoami(request: web.Request) -> web.Response:
    user = user_of(request)
    if user is None:
        raise refused(401, "Invalid username or password.")
    role = "write" if user.writes else "read"
    orgs = [{"name": org, "type": "org"} for org in user.orgs]
    return web.json_response(
        {"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": {"role": role, "displayName": "test"}}}
    )


async def create_repo(request: web.Request) -> web.Response:
    user, wanted, state = user_of(request), await request.json(), state_of(request)
    if user is None:
        raise refused(401, "Invalid username or password.")
    owner = wanted.get("organization") or user.name
    kind, name = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
    if not user.writes or owner not in (user.name, *user.orgs):
        raise refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    url = f"{state.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in state.repos:
        return web.json_response({"error": "You already created this repo", "url": url}, status=409)
    state.create(name, kind=kind, private=wanted.get("visibility") == "private")
    return web.json_response({"url": url, "name": name, "id": "0"})


async def validate_yaml(request: web.Request) -> web.Response:
    wanted = await request.json()
    errors = header_errors(wanted["content"])
    return web.json_response({"errors": [{"message": e} for e in errors], "warnings": []}, status=400 if errors else 200)


def header_errors(card: str) -> list[str]:
    """What the Hub would refuse in a card's YAML."""
    parts = card.split("---\n", 2)
    if len(parts) < 3 or parts[0]:
        return []
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    given = header.get("license")
    for licence in given if isinstance(given, list) else [given] if given is not None else []:
        if licence not in LICENCES:
            return [f'"license" must be one of [{", ".join(sorted(LICENCES))}, ...]']
    return []


async def repo_info(request: web.Request) -> web.Response:
    repo = repo_of(request)
    found = revision_of(request, repo)
    siblings = [{"rfilename": path} for path in found.files]
    return web.json_response(
        {"id": repo.name, "author": repo.name.split("/")[0], "sha": found.oid, "private": repo.private, "gated": False}
        | {
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "createdAt": "2026-11-21T00:00:00.000Z",
        }
    )


async def tree(request: web.Request) -> web.Response:
    repo = repo_of(request)
    files = revision_of(request, repo).files
    below = request.match_info.get("path", "")
    if below and below not in folders(files):
        raise refused(404, f"{below} does not exist", "EntryNotFound")
    recursive = request.query.get("recursive", "").lower() == "true"
    entries = list(listing(files, below, recursive=recursive))
    start, size = int(request.query.get("cursor", "0")), state_of(request).page_size
    page = entries[start : start + size]
    headers = {}
    if start + size < len(entries):
        following = request.url.update_query(cursor=str(start + size))
        headers["Link"] = f'<{following}>; rel="next"'
    return web.json_response(page, headers=headers)


def listing(files: dict[str, File], below: str, *, recursive: bool) -> Iterable[dict[str, Any]]:
    """Files and folders below a folder."""
    prefix = f"{below}/" if below else ""
    for folder in folders(files):
        rest = folder.removeprefix(prefix)
        if folder.startswith(prefix) and folder != below and (recursive or "/" not in rest):
            yield {"type": "directory", "oid": hashlib.sha1(folder.encode()).hexdigest(), "size": 0, "path": folder}
    for path, file in sorted(files.items()):
        if path.startswith(prefix) and (recursive or "/" not in path.removeprefix(prefix)):
            yield tree_entry(path, file)


def folders(files: Iterable[str]) -> list[str]:
    """Every folder that some file lies in."""
    return sorted({str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."})


async def paths_info(request: web.Request) -> web.Response:
    repo = repo_of(request)
    files = revision_of(request, repo).files
    form = await request.post()
    wanted = [str(path) for path in form.getall("paths", [])]
    known = set(folders(files))
    found = [tree_entry(path, files[path]) for path in wanted if path in files]
    found += [
        {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        for path in wanted
        if path in known
    ]
    return web.json_response(found)


async def refs(request: web.Request) -> web.Response:
    repo = repo_of(request)
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
    branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
    return web.json_response({"branches": [branch], "converts": [], "tags": tags})


async def tag(request: web.Request) -> web.Response:
    repo = repo_of(request, write=True)
    found, name = revision_of(request, repo), (await request.json())["tag"]
    if name in repo.tags:
        raise refused(409, f"Tag {name} already exists")
    repo.tags[name] = found.oid
    return web.json_response({})


async def preupload(request: web.Request) -> web.Response:
    repo = repo_of(request, write=True)
    files = revision_of(request, repo).files
    answers = []
    for wanted in (await request.json())["files"]:
        large = wanted["path"].endswith(LARGE) or wanted["size"] > 10_000_000
        here = files.get(wanted["path"])
        oid = None if here is None else here.sha256 if here.lfs else here.git_oid
        answers.append({"path": wanted["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
    return web.json_response({"files": answers})


async def batch(request: web.Request) -> web.Response:
    repo_of(request, write=True)
    state, wanted = state_of(request), await request.json()
    return web.json_response(
        {"transfer": "basic", "objects": [upload_action(state, thing["oid"], thing["size"]) for thing in wanted["objects"]]},
        content_type="application/vnd.git-lfs+json",
    )


def upload_action(state: State, sha256: str, size: int) -> dict[str, Any]:
    """How an object is to be sent; without `actions` where it is here."""
    answer: dict[str, Any] = {"oid": sha256, "size": size}
    if state.has(sha256, size):
        return answer
    verified = {"href": f"{state.url}/_lfs/{sha256}/verify"}
    if size <= state.part_bytes:
        return answer | {"actions": {"upload": {"href": f"{state.storage_url}/_lfs/{sha256}"}, "verify": verified}}
    parts = {f"{n + 1:05}": f"{state.storage_url}/_lfs/{sha256}/{n + 1}" for n in range(-(-size // state.part_bytes))}
    upload = {"href": f"{state.url}/_lfs/{sha256}/complete", "header": {"chunk_size": str(state.part_bytes), **parts}}
    return answer | {"actions": {"upload": upload, "verify": verified}}


async def put_object(request: web.Request) -> web.Response:
    refuse_token(request)
    state, sha256 = state_of(request), request.match_info["sha256"]
    await receive(request, state.folder / f"{sha256}.part")
    return accept(state, sha256, [state.folder / f"{sha256}.part"])


async def put_part(request: web.Request) -> web.Response:
    refuse_token(request)
    path = state_of(request).folder / f"{request.match_info['sha256']}.{int(request.match_info['part']):05}.part"
    digest = await receive(request, path)
    return web.Response(headers={"ETag": f'"{digest}"'})


async def complete(request: web.Request) -> web.Response:
    state, sha256 = state_of(request), request.match_info["sha256"]
    wanted = (await request.json())["parts"]
    paths = [state.folder / f"{sha256}.{part['partNumber']:05}.part" for part in wanted]
    if any(not path.is_file() or hash_of(path) != part["etag"].strip('"') for path, part in zip(paths, wanted, strict=True)):
        raise refused(400, "a part is missing or differs")
    return accept(state, sha256, paths)


def refuse_token(request: web.Request) -> None:
    """Storage is somebody else's machine: a signed address is all it may see."""
    if "Authorization" in request.headers:
        raise refused(400, "only one way of authentication is allowed")


async def receive(request: web.Request, path: Any) -> str:
    """Writes a body to a file; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        async for chunk in request.content.iter_chunked(1 << 20):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def hash_of(path: Any) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def accept(state: State, sha256: str, paths: list[Any]) -> web.Response:
    """Joins the parts and keeps them if they are what was announced."""
    whole = paths[0]
    with whole.open("ab") as target:
        for path in paths[1:]:
            target.write(path.read_bytes())
            path.unlink()
    if hash_of(whole) != sha256:
        whole.unlink()
        raise refused(400, "the SHA-256 of what was sent is not the one announced")
    whole.replace(state.objects / sha256)
    state.uploaded.append(sha256)
    return web.Response()


async def verify(request: web.Request) -> web.Response:
    wanted = await request.json()
    if not state_of(request).has(wanted["oid"], wanted["size"]):
        raise refused(404, "no such object")
    return web.Response()


async def commit(request: web.Request) -> web.Response:
    repo, state = repo_of(request, write=True), state_of(request)
    head = revision_of(request, repo)
    lines = [json.loads(line) for line in (await request.text()).splitlines() if line.strip()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, head.oid):
        raise refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines[1:]:
        apply(state, files, line["key"], line["value"])
    if errors := header_errors((state.objects / files["README.md"].sha256).read_text()) if "README.md" in files else []:
        raise refused(400, errors[0])
    made = repo.commit(header["summary"], header["description"], files)
    return web.json_response(
        {"commitUrl": f"{state.url}/{repo.name}/commit/{made.oid}", "commitOid": made.oid, "success": True}
    )


def apply(state: State, files: dict[str, File], key: str, value: Any) -> None:
    """One line of a commit."""
    if key == "file":
        files[value["path"]] = state.store(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if not state.has(value["oid"], value.get("size")):
            raise refused(422, f"{value['path']}: no object {value['oid']} was uploaded")
        files[value["path"]] = state.large(value["oid"], (state.objects / value["oid"]).stat().st_size)
    elif key == "deletedFile":
        if value["path"] not in files:
            raise refused(404, "A file with this name doesn't exist", "EntryNotFound")
        del files[value["path"]]
    elif key == "deletedFolder":
        for path in [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]:
            del files[path]


async def resolve(request: web.Request) -> web.StreamResponse:
    repo, state = repo_of(request), state_of(request)
    found = revision_of(request, repo)
    file = found.files.get(request.match_info["path"])
    if file is None:
        missing = refused(404, "Entry not found", "EntryNotFound")
        missing.headers["X-Repo-Commit"] = found.oid
        raise missing
    etag = file.sha256 if file.lfs else file.git_oid
    headers = {"X-Repo-Commit": found.oid, "Accept-Ranges": "bytes", "ETag": f'"{etag}"'}
    if file.lfs:
        headers |= {
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(file.size),
            "Location": f"{state.storage_url}/_cdn/{file.sha256}",
        }
        return web.Response(status=302, headers=headers)
    content = (state.objects / file.sha256).read_bytes()
    assert git_blob(content) == file.git_oid
    return web.Response(body=content, headers=headers, content_type="application/octet-stream")


async def cdn(request: web.Request) -> web.StreamResponse:
    """Large files, with ranges."""
    refuse_token(request)
    return web.FileResponse(state_of(request).objects / request.match_info["sha256"])
