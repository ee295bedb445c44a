"""An HTTP/3 server (aioquic): `http3-server.py ADDRESS PORT CERTIFICATE KEY`. Each GET is answered with its path; /big has 256 KiB behind it."""
import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for each in self.http.handle_event(event) if self.http else ():
            if isinstance(each, HeadersReceived):
                path = dict(each.headers)[b":path"]
                body = b"page " + path + (b"." * 2**18 if path == b"/big" else b"")
                self.http.send_headers(each.stream_id, [(b":status", b"200")])
                self.http.send_data(each.stream_id, body, end_stream=True)
                self.transmit()


async def main(address, port, certificate, key):
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False)
    configuration.load_cert_chain(certificate, key)
    await serve(address, int(port), configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main(*sys.argv[1:]))
