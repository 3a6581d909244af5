#!/bin/sh
# A worker that costs next to nothing: nginx answering 512 bytes from memory on $PORT.
set -eu
folder=$(mktemp -d)
body=$(head -c 512 /dev/zero | tr '\0' x)
cat >"$folder/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $folder/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  server {
    listen 127.0.0.1:$PORT;
    location / { default_type text/plain; return 200 "$body"; }
  }
}
CONF
exec nginx -p "$folder" -c "$folder/nginx.conf" -e stderr
