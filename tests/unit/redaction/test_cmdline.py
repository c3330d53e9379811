# SPDX-License-Identifier: Apache-2.0
"""cmdline.py: secrets are redacted, everything else is kept, and no input makes it slow.

In SECRETS, secrets are in angle quotes; the expected result is the same command line with [redacted] in their place.
"""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.redaction.cmdline import Redactor
from tracer.redaction.patterns import REDACTED

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
AWS_ID = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_KEY = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
GITHUB = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
SLACK = "xoxb-" + "17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"

SECRETS = [
    ["app", "--password=‹hunter2›"],
    ["app", "--password=‹hunter 2 with spaces›"],
    ["app", "--password=‹a&b;c,d'e\"f›"],
    ["app", "--password", "‹hunter2›", "--port", "80"],
    ["app", "--password", "‹/etc/no-path-for-a-password›"],
    ["app", "-password", "‹hunter2›"],
    ["app", "--db-password:‹hunter2›"],
    ["app", "--dbPassword=‹hunter2›", "--clientSecret", "‹x1›", "--accessToken=‹abc›"],
    ["app", "--passwd=‹a1›", "--pwd", "‹a2›", "--pass", "‹a3›", "--passphrase", "‹a4›"],
    ["app", "--api-key=‹abc›", "--apikey", "‹abc›", "--api_key", "‹abc›", "--ACCESS-KEY=‹abc›"],
    ["app", "--private-key=‹MIIEv›", "--credential=‹abc›", "--credentials", "‹user:abc›", "--auth=‹user:abc›"],
    ["app", "--hf-token", "‹abc›", "--auth-token=‹abc›", "--secret-key", "‹abc›", "--secret", "‹s3cr3t›"],
    ["app", "--password2=‹abc›", "--smtp-pass=‹abc›"],
    ["env", "PASSWORD=‹hunter2›", "app"],
    ["env", "AWS_SECRET_ACCESS_KEY=‹wJalr›", "MYSQL_PWD=‹x›", "PGPASSWORD=‹y›", "SECRET_KEY_BASE=‹z›", "app"],
    ["docker", "run", "-e", "DB_PASSWORD=‹hunter2 with space›", "--env=TOKEN=‹a;b›", "img"],
    ["docker", "login", "-u", "me", "-p", "‹hunter2›", "registry.example.com"],
    ["docker", "exec", "db", "mysql", "-uroot", "-p‹hunter2›", "shop"],
    ["java", "-Xmx1g", "-Dspring.datasource.password=‹hunter2›", "-jar", "app.jar"],
    ["java", "-Djavax.net.ssl.keyStorePassword=‹changeit›", "App"],
    ["java", "App", "jdbc:sqlserver://db:1433;databaseName=shop;user=sa;password=‹hunter2›;encrypt=true"],
    ["java", "App", "jdbc:mysql://db/shop?user=me&password=‹hunter2›&useSSL=false"],
    ["java", "App", "jdbc:oracle:thin:scott/‹tiger›@db:1521:orcl"],
    ["app", "--dsn=Server=db;Password=‹a&b›;Database=shop"],
    ["app", "AccountName=me;AccountKey=‹abc==›;EndpointSuffix=core.windows.net"],
    ["curl", "https://example.com/v1?token=‹abc›&page=2"],
    ["curl", "https://example.com/v1?page=2&api_key=‹abc#1›"],
    ["curl", "https://example.com/blob?sv=2020&sig=‹abc%3D›"],
    ["mysql", "-u", "root", "-p‹hunter2›", "-h", "db"],
    ["/usr/bin/mysqldump", "-p‹hunter2›", "--all-databases"],
    ["mysql", "-p‹password›", "-h", "db"],
    ["mysql", "-p‹token=a,b=c:d›", "-h", "db"],
    ["sudo", "mysql", "-p‹12345›"],
    ["mariadb-dump", "-p‹1234›", "shop"],
    ["sudo", "mysqladmin", "-p‹hunter2›", "status"],
    ["curl", "-u", "me:‹hunter2›", "https://example.com"],
    ["curl", "-sSfu", "me:‹hunter2›", "https://example.com"],
    ["curl", "-ume:‹hunter2›", "--proxy-user", "me:‹abc›", "https://example.com"],
    ["curl", "--user", "me:‹hun:ter2›", "https://example.com"],
    ["curl", "-H", "Authorization: Bearer ‹abc.def›", "https://example.com"],
    ["curl", "-H", "authorization: Basic ‹bWU6aHVudGVyMg==›", "https://example.com"],
    ["curl", "-H", "Proxy-Authorization: ‹whatever this is›"],
    ["curl", "-H", "X-Api-Key: ‹abc›", "-H", "X-Auth-Token:‹abc›"],
    ["curl", "--oauth2-bearer", "‹abc›", "https://example.com"],
    ["curl", "-d", '{"user": "me", "password": "‹my pass phrase›", "x": 1}'],
    ["curl", "-d", '{"token":"‹a\\"b›","x":1}'],
    ["curl", "-d", "user=me&password=‹hunter2›&x=1"],
    ["app", "postgres://me:‹hunter2›@db:5432/shop?sslmode=disable"],
    ["app", "--broker=amqp://me:‹hun@ter2›@mq/"],
    ["app", "redis://:‹hunter2›@cache:6379/0"],
    ["git", "clone", "https://x-access-token:‹abc›@github.com/a/b.git"],
    ["redis-cli", "-h", "cache", "-a", "‹hunter2›", "PING"],
    ["redis-cli", "--pass", "‹hunter2›"],
    ["redis-server", "--requirepass", "‹hunter2›", "--masterauth", "‹abc›"],
    ["sshpass", "-p", "‹hunter2›", "ssh", "-p", "2222", "me@host"],
    ["sshpass", "-p‹hunter2›", "ssh", "-p2222", "me@host"],
    ["mongosh", "-u", "me", "-p", "‹hunter2›"],
    ["ldapsearch", "-x", "-D", "cn=admin", "-w", "‹hunter2›"],
    ["smbclient", "//host/share", "-U", "me%‹hunter2›"],
    ["openssl", "rsa", "-in", "a.pem", "-passin", "pass:‹hunter2›"],
    ["mount", "-t", "cifs", "-o", "username=me,password=‹hunter2›,uid=1000", "//h/s", "/mnt"],
    ["helm", "install", "--set", "db.password=‹hunter2›,db.user=me"],
    ["aws", "configure", "set", "aws_secret_access_key", "‹abc›"],
    ["app", f"‹{AWS_ID}›", f"‹{AWS_KEY}›"],
    ["app", f"‹{GITHUB}›"],
    ["app", f"x=‹{SLACK}›"],
    ["app", f"‹{JWT}›"],
    ["app", "-----BEGIN RSA PRIVATE KEY-----‹\nMIIEpAIBAAKCAQEA\n›-----END RSA PRIVATE KEY-----"],
    ["app", "-----BEGIN PRIVATE KEY-----‹\nMIIEpAIBAAKCAQEA (cut by the›"],
    ["sh", "-c", "mysql -u root -p‹hunter2› shop < dump.sql"],
    ["sh", "-c", "PGPASSWORD=‹hunter2› pg_dump -h db shop | gzip > /backup/a.gz"],
    ["sh", "-c", "export TOKEN='‹a b›'; exec app --password \"‹c d›\" --port 80"],
    ["sh", "-c", "redis-cli -a ‹hunter2› ping && curl -s -u me:‹abc› http://localhost/?a=1"],
    ["bash", "-lc", "exec app --api-key=‹abc›;echo done"],
    ["sh", "-c", "ssh host 'mysql -p‹hunter2› -e \"select 1\"'"],
    ["sh", "-c", "curl -H \"Authorization: Bearer ‹abc›\" https://example.com; true"],
    ["sh", "-c", "curl -d '{\"password\":\"‹abc›\"}' https://me:‹x›@example.com"],
    ["sh", "-c", "curl -d \"{\\\"password\\\":\\\"‹abc›\\\",\\\"a\\\":1}\" https://example.com"],
    ["mysqld --password=‹hunter2› --port=3306"],
    ["npm", "config", "set", "//registry.example.com/:_authToken=‹abc›"],
]  # fmt: skip

ORDINARY = [
    [],
    [""],
    ["nginx: worker process"],
    ["postgres: 14/main: walwriter"],
    ["postgres: shop shop 10.0.0.7(51234) idle in transaction"],
    ["python3", "-m", "http.server", "8080"],
    ["python3", "-c", "import time; time.sleep(3600)"],
    ["java", "-Xms1g", "-Xmx2g", "-XX:+UseG1GC", "-Dfile.encoding=UTF-8", "-cp", "/app/lib/*", "com.example.Auth"],
    ["java", "-Djavax.net.ssl.keyStore=/etc/keystore.jks", "-Dsecurity.auth.enabled=true", "-jar", "auth.jar"],
    ["node", "--max-old-space-size=4096", "/srv/token-service/index.js"],
    ["kube-apiserver", "--authorization-mode=Node,RBAC", "--client-ca-file=/etc/kubernetes/pki/ca.crt",
     "--enable-bootstrap-token-auth=true", "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
     "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key", "--anonymous-auth=false",
     "--authentication-token-webhook=true", "--proxy-client-key-file=/x.key", "--oidc-client-id=abc"],
    ["kubelet", "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap.conf", "--rotate-certificates=true"],
    ["mongod", "--auth", "--bind_ip_all", "--keyFile", "/etc/mongo/keyfile"],
    ["vllm", "serve", "--max-tokens=4096", "--tokenizer", "meta/llama", "--max-num-batched-tokens", "8192"],
    ["trainer", "--pad-token", "<pad>", "--tokenizer-mode=auto"],
    ["docker", "run", "-p3306:3306", "--name", "mysql", "-p", "8080:80", "mysql:8"],
    ["docker", "run", "--secret", "id=npm,src=.npmrc", "--user", "1000:1000", "registry.example.com/org/token:1.2"],
    ["docker-proxy", "-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "80", "-container-ip", "172.17.0.2"],
    ["ssh", "-p", "2222", "-i", "/root/.ssh/id_ed25519", "me@mysql"],
    ["ssh", "-p2222", "mysql"],
    ["sshd: me [priv]"],
    ["mysql", "-u", "root", "-p", "shop"],
    ["mysql", "--password", "shop"],
    ["mysqld", "--port=3306", "-P3306", "--default-authentication-plugin=mysql_native_password"],
    ["psql", "--no-password", "shop"],
    ["pg_dump", "--password", "shop"],
    ["initdb", "--auth=scram-sha-256", "--auth-local=trust", "--pwfile=/run/pw"],
    ["curl", "-u", "me", "https://example.com:8443/a@b"],
    ["curl", "http://10.0.0.1:8080/path?page=2&size=10"],
    ["git", "clone", "ssh://git@example.com:22/a/b.git"],
    ["git", "-c", "credential.helper=store", "fetch"],
    ["app", "--password-file=/run/secrets/db", "--token-file", "/run/token", "--secret-name=db"],
    ["app", "--token=/var/run/secrets/kubernetes.io/serviceaccount/token"],
    ["app", "--credentials", "/etc/gcp/key.json", "--private-key=deploy.pem", "--private-key", "~/.ssh/id_rsa"],
    ["app", "--password=$PASSWORD", "--token=${TOKEN:-}", "--secret=$(DB_SECRET)", "--password="],
    ["app", "PWD=/home/me", "OLDPWD=/tmp", "COMPASS=north", "bypass=x", "monkey=1"],
    ["app", "--ask-pass", "site.yml", "--no-auth", "run", "--password-stdin", "x", "--password-prompt"],
    ["app", "--author=me", "--authors", "you", "--key=value", "--keyspace", "shop", "--passive", "yes"],
    ["ffmpeg", "-i", "a.mkv", "-pass", "1", "-c:v", "libx264", "out.mkv"],
    ["sh", "-c", "while true; do app --password \"$DB_PASSWORD\" --token $TOKEN; done"],
    ["sh", "-c", "PASSWORD=$(cat /run/secrets/db) exec app"],
    ["sh", "-c", "mysql -p3306 | ssh -p 22 host".replace("-p3306", "-P3306")],
    ["sh", "-c", "echo \"it's done\" && sleep 3600 # no secret here"],
    ["grep", "-r", "password", "/etc"],
    ["kubectl", "get", "secret", "db", "-o", "yaml"],
    ["prometheus", "--web.enable-lifecycle", "--storage.tsdb.path=/prometheus"],
    ["/usr/lib/systemd/systemd", "--switched-root", "--system", "--deserialize", "31"],
    ["app", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "c76ed183-2e7b-4cce-83a3-e407a8bcac3c"],
    ["python", "train.py", "--lr=1e-4", "--data=s3://bucket/key/part-0001.parquet"],
    ["app", "risk-assessment-of-large-portfolios"],
]  # fmt: skip

PIECES = [
    "pass", "password", "--password", "-p", "=", ":", " ", "'", '"', "\\", "://", "@", "eyJ", ".", "authorization",
    "bearer ", "-----BEGIN PRIVATE KEY-----", "-----END", "secret", "token", "auth", "a", "1", "-", "_", ",", ";", "&",
    "|", "$(", "mysql", "curl", "-u", "sh", "\n", "\t", "{", "[redacted]", "AKIAIOSFODNN7EXAMPLE", "ghp_", "xoxb-",
    "sk-", "jdbc:oracle:thin:", "/", "?", "#", "İ", "\x00", "\U0001f511",
]  # fmt: skip


@pytest.mark.parametrize("marked", SECRETS, ids=" ".join)
def test_secret(marked: list[str]) -> None:
    """Only the secret is replaced."""
    whole = [re.sub("[‹›]", "", argument) for argument in marked]
    assert [re.sub("‹.*?›", REDACTED, argument, flags=re.DOTALL) for argument in marked] == Redactor().redact(whole)


@pytest.mark.parametrize("cmdline", ORDINARY, ids=" ".join)
def test_ordinary(cmdline: list[str]) -> None:
    """A command line without secrets is unchanged."""
    assert cmdline == Redactor().redact(cmdline)


@pytest.mark.parametrize("cmdline", SECRETS, ids=" ".join)
def test_twice(cmdline: list[str]) -> None:
    """Redacting twice changes nothing."""
    once = Redactor().redact([re.sub("[‹›]", "", argument) for argument in cmdline])
    assert once == Redactor().redact(once)


def test_own_pattern() -> None:
    """The whole match is redacted, or only its groups."""
    redactor = Redactor(["id-[0-9]+", "(?:user|group)=([a-z]+)/([a-z]+)?"], defaults=False)
    assert [f"x {REDACTED} y", f"user={REDACTED}/{REDACTED} --password=x", f"group={REDACTED}/"] == redactor.redact(
        ["x id-17 y", "user=me/you --password=x", "group=us/"]
    )


@pytest.mark.parametrize("pattern", ["user=(?=([a-z]+))", "(?<==)([a-z]+)", "((m)(e))", "(m(e))"])
def test_own_pattern_with_groups_anywhere(pattern: str) -> None:
    """Nested groups are one secret; a group in a lookahead is one as well."""
    assert "me" not in Redactor([pattern], defaults=False).redact(["user=me"])[0]
    assert Redactor([pattern], defaults=False).redact(["user=me"])[0].startswith("user=[redacted]")


def test_own_pattern_beside_the_defaults() -> None:
    """Both are replaced."""
    assert [f"--password={REDACTED}", f"a{REDACTED}c"] == Redactor(["b"]).redact(["--password=x", "abc"])


@pytest.mark.parametrize("pattern", ["", "x*", "(x*)", "((a)b)", "(?=a)"])
def test_own_pattern_that_matches_little(pattern: str) -> None:
    """An empty match inserts nothing."""
    assert Redactor([pattern]).redact(["yy z"]) == ["yy z"]


@pytest.mark.parametrize("pattern", ["(", "[", "*", "(?P<a>x)(?P<a>y)", "a{99999999999}"])
def test_bad_pattern(pattern: str) -> None:
    """The error names the pattern."""
    with pytest.raises(TracerError, match="invalid regular expression") as caught:
        Redactor([pattern])
    assert caught.value.exit_code == EXIT_USAGE
    assert repr(pattern) in caught.value.message


def test_nothing_asked() -> None:
    """Without patterns and defaults nothing changes, and the caller's list is copied."""
    cmdline = ["app", "--password=x"]
    redacted = Redactor(defaults=False).redact(cmdline)
    assert redacted == cmdline
    assert redacted is not cmdline


HOSTILE = [piece * (4096 // len(piece)) for piece in PIECES] + [
    (one + two) * (4096 // len(one + two)) for one in PIECES for two in PIECES
]


def test_time() -> None:
    """4 KiB take milliseconds for any content: no expression backtracks."""
    redactor = Redactor()
    slowest = (0.0, "")
    for argument in HOSTILE:
        began = time.process_time()
        redactor.redact(["sh", "-c", argument])
        slowest = max(slowest, (time.process_time() - began, argument[:40]))
    assert slowest[0] < 0.25, slowest


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=200).map("".join), max_size=6))
@example(["\ud800"])
def test_hostile(cmdline: list[str]) -> None:
    """For any input, the number of arguments stays the same, in a short time."""
    began = time.process_time()
    redacted = Redactor(["a(b)?"]).redact(cmdline)
    assert len(cmdline) == len(redacted)
    assert time.process_time() - began < 0.5
