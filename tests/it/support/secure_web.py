"""Real servers for the tests of repository access, each on a free port of loopback, told what to do by a JSON file
that is read at every request: a static web server (TLS by OpenSSL, client certificates, tokens, redirects), an HTTP
proxy (CONNECT and plain), a SOCKS5 proxy. Every request is one JSON line in the log."""

import base64
import http.server
import json
import os
import select
import socket
import socketserver
import ssl
import struct
import sys
import threading

told = json.loads(sys.argv[1])
lock = threading.Lock()


def control():
    with open(told["control"]) as file:
        return json.load(file)


def log(**line):
    with lock, open(told["log"], "a") as file:
        file.write(json.dumps(line) + "\n")


def pump(one, other):
    while True:
        for ready in select.select([one, other], [], [])[0]:
            try:
                data = ready.recv(65536)
            except OSError:
                data = b""
            if not data:
                return
            (other if ready is one else one).sendall(data)


def reach(host, port):
    """Names that only this proxy knows."""
    host, port = control().get("hosts", {}).get(host, [host, port])
    return socket.create_connection((host, port), 20)


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def end(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.headers.get("Connection") == "close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        now = control()
        peer = self.connection.getpeercert() if told.get("cert") else None
        names = [value for part in (peer or {}).get("subject", ()) for key, value in part if key == "commonName"]
        token = self.headers.get("Authorization")
        log(path=self.path, token=token, client=names[0] if names else None)
        if now.get("status"):
            return self.end(now["status"])
        if now.get("token") and token != "Bearer " + now["token"]:
            return self.end(401, **{"WWW-Authenticate": "Bearer"})
        if now.get("client") and names != [now["client"]]:
            return self.end(403)
        if now.get("redirect"):
            return self.end(302, Location=now["redirect"] + self.path)
        path = os.path.join(told["folder"], self.path.lstrip("/"))
        try:
            with open(path, "rb") as file:
                return self.end(200, file.read())
        except OSError:
            return self.end(404)


class Proxy(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().decode().split(" ")
        headers = {}
        while (line := self.rfile.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        now, given = control(), headers.get("proxy-authorization")
        log(method=words[0], target=words[1], auth=given, token=headers.get("authorization"))
        wanted = now.get("login") and "Basic " + base64.b64encode(now["login"].encode()).decode()
        if wanted and given != wanted:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
                             b"Proxy-Authenticate: Basic\r\nConnection: close\r\n\r\n")
            return
        if now.get("refuse"):
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if words[0] == "CONNECT":
            host, _, port = words[1].rpartition(":")
            with reach(host, int(port)) as other:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                pump(self.connection, other)
            return
        host, _, path = words[1].removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        with reach(name, int(port or 80)) as other:
            other.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            pump(self.connection, other)


class Socks(socketserver.StreamRequestHandler):
    def handle(self):
        count = self.rfile.read(2)[1]
        offered = self.rfile.read(count)
        login = control().get("login")
        if login:
            if 2 not in offered:
                return self.wfile.write(b"\x05\xff")
            self.wfile.write(b"\x05\x02")
            self.rfile.read(1)
            user = self.rfile.read(self.rfile.read(1)[0]).decode()
            password = self.rfile.read(self.rfile.read(1)[0]).decode()
            good = f"{user}:{password}" == login
            self.wfile.write(b"\x01" + (b"\x00" if good else b"\x01"))
            if not good:
                return None
        else:
            self.wfile.write(b"\x05\x00")
        kind = self.rfile.read(4)[3]
        if kind == 1:
            host = socket.inet_ntoa(self.rfile.read(4))
        else:
            host = self.rfile.read(self.rfile.read(1)[0]).decode()
        port = struct.unpack("!H", self.rfile.read(2))[0]
        log(method="SOCKS5", target=f"{host}:{port}", by="address" if kind == 1 else "name")
        with reach(host, port) as other:
            self.wfile.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            pump(self.connection, other)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


handlers = {"web": Web, "proxy": Proxy, "socks": Socks}
server = Server(("127.0.0.1", told.get("port", 0)), handlers[told["kind"]])
if told.get("cert"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(told["cert"], told["key"])
    if told.get("client_ca"):
        context.verify_mode = ssl.CERT_REQUIRED if told.get("must", True) else ssl.CERT_OPTIONAL
        context.load_verify_locations(told["client_ca"])
    # In the connection's own thread: one that says nothing must not hold up the others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
