//! What a worker in plain Python needs to be upgraded to a WebSocket, as far as a gateway sees it: it echoes byte by byte.

/// A module `echo`, to be written beside the program.
pub const FILE: &str = "echo.py";

/// Its text.
pub const MODULE: &str = "\
class Echo:
    def echo(self):
        self.send_response(101)
        self.send_header('Connection', 'upgrade')
        self.send_header('Upgrade', 'websocket')
        self.end_headers()
        while byte := self.rfile.read(1):
            self.wfile.write(byte)
        self.close_connection = True
";
