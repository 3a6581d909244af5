-- What wrk sends in the row of the 1 KiB POST.
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
