"""What scanners and hostile sites ask of a page, and what each of its answers must have; see `hostile_page`."""

from __future__ import annotations

SECRETS = ("root:x:0:0", "[core]\n\trepositoryformatversion", "Traceback (most recent call last)", "daemon:x:")
REQUIRED_HEADERS = {
    "content-security-policy": r"default-src 'none'.*frame-ancestors 'none'",
    "x-content-type-options": r"nosniff",
    "referrer-policy": r"no-referrer|same-origin",
    "x-frame-options": r"DENY",
}
FOREIGN = ("http://evil.example", "https://evil.example", "null", "http://localhost:1", "http://127.0.0.1:1", "file://")
FOREIGN += ("http://localhost.evil.example", "http://evil.example:8501", "chrome-extension://abc", "http://[::1]:1")

UP = ("..", "%2e%2e", "%2e.", ".%2e", "%252e%252e", "..%00", "..%c0%af", "%c0%ae%c0%ae", "..%5c", "..;", "．．")
SLASHES = ("/", "%2f", "%252f", "\\", "%5c", "//")
TARGETS = ("etc/passwd", "proc/self/environ", "windows/win.ini", "app.py")
BASES = ("/", "/static/", "/media/", "/component/", "/_stcore/bidi-components/", "/app/static/", "/vtg/x/video/")
HIDDEN = r"""
/.git/config /.git/HEAD /.env /.svn/entries /.ssh/id_rsa /.htaccess /.DS_Store /.streamlit/secrets.toml
/.streamlit/config.toml /server-status /server-info /phpinfo.php /wp-login.php /wp-admin/ /admin /actuator/env
/debug/pprof/ /console /backup.zip /config.json /library.json /uploads/ /previews/ /swagger.json /graphql /api/
/metrics /_stcore/metrics /_stcore/agent/interact /_stcore/agent/openapi.json /_stcore/agent/mcp
/_stcore/script-health-check /auth/login /auth/logout /oauth2callback /cgi-bin/test-cgi /crossdomain.xml
/clientaccesspolicy.xml /.well-known/openid-configuration /app.py /etc/passwd //etc/passwd ///etc/passwd
/\etc\passwd /C:/Windows/win.ini /proc/self/environ /media/etc/passwd /media//etc/passwd /media/%2fetc%2fpasswd
/media/C:%5cWindows%5cwin.ini /vtg/ /vtg/x /vtg//video/ /static/ /static /index.html%00.png /%00 /search%00
/%0d%0aSet-Cookie:%20a=b /search/..%00/ /~root/ /?-s
"""
REDIRECTS = r"""
//evil.example //evil.example/ //evil.example/%2f.. /\evil.example /%09/evil.example /%5cevil.example
/https://evil.example /search//evil.example/ /search/?next=//evil.example /?url=https://evil.example
/sign-in?next=//evil.example /sign-in?next=https://evil.example /static//evil.example/ /video//
/library//evil.example
"""
SCRIPTS = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "';alert(1)//", "javascript:alert(1)", "{{7*7}}",
    "${7*7}", "</title><svg/onload=alert(1)>", "\u202ecod.exe", "%00", "' OR 1=1 --", "$(id)", "`id`", "|id",
    "../../etc/passwd",
)  # fmt: skip
RANGES = (
    "bytes=0-99999999999999999999", "bytes=99999999999999999999-", "bytes=-0", "bytes=-99999999999999999999",
    "bytes=5-1", "bytes=-", "bytes=--5", "bytes=a-b", "lines=0-5", f"bytes=0-0{',0-' * 2_000}", "bytes=0-,0-,0-,0-",
    "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 900, 2)),
)  # fmt: skip
VERBS = ("TRACE", "TRACK", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "PROPFIND", "DEBUG", "MOVE", "LOCK", "GETX")
