"""An HTTP/3 client (aioquic): `http3-client.py HOST PORT CERTIFICATES PATH...` prints the beginning and the length of each answer."""
import asyncio
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.bodies = {}

    def quic_event_received(self, event):
        for each in self.http.handle_event(event):
            if isinstance(each, (DataReceived, HeadersReceived)):
                body, done = self.bodies[each.stream_id]
                body += each.data if isinstance(each, DataReceived) else b""
                if each.stream_ended:
                    done.set_result(bytes(body))

    async def get(self, authority, path):
        stream = self._quic.get_next_available_stream_id()
        body = bytearray(), asyncio.get_running_loop().create_future()
        self.bodies[stream] = body
        named = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path}
        self.http.send_headers(stream, [(k.encode(), v.encode()) for k, v in named.items()], end_stream=True)
        self.transmit()
        return await asyncio.wait_for(body[1], 300)


async def main(host, port, certificates, *paths):
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, cafile=certificates, server_name=host, idle_timeout=300)
    async with connect(host, int(port), configuration=configuration, create_protocol=Client) as client:
        for body in await asyncio.gather(*(client.get(f"{host}:{port}", path) for path in paths)):
            print(body[:10].decode(), len(body))


asyncio.run(main(*sys.argv[1:]))
