#!/bin/sh
# A worker that costs next to nothing: nginx on $PORT, answering from memory: 512 bytes, or 64 KiB to /64k. What is posted to
# it is read and thrown away.
set -eu
folder=$(mktemp -d)
half_kib=$(head -c 512 /dev/zero | tr '\0' x)
two_kib=$half_kib$half_kib$half_kib$half_kib
cat >"$folder/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $folder/nginx.pid;
error_log stderr;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi; scgi_temp_path $folder/scgi;
  server {
    listen 127.0.0.1:$PORT backlog=4096;
    default_type text/plain;
    location / { return 200 "$half_kib"; }
    location /64k {
      set \$two "$two_kib";
      set \$sixteen "\$two\$two\$two\$two\$two\$two\$two\$two";
      return 200 "\$sixteen\$sixteen\$sixteen\$sixteen";
    }
  }
}
CONF
exec nginx -p "$folder" -c "$folder/nginx.conf" -e stderr
