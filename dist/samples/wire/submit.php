#!/usr/bin/env php
<?php // submit.php HOST PORT TUBE JOB: put a job on a pool's tube, print its output, end with its status
[, $host, $port, $tube, $job] = $argv;
$f = fsockopen($host, (int)$port);
function ask($f, $line) {
    fwrite($f, "$line\r\n");
    return explode(' ', trim(fgets($f)));
}
ask($f, "use $tube");
[, $id] = ask($f, 'put 1 0 60 ' . strlen($job) . "\r\n$job");
ask($f, "watch {$tube}_result_id$id");
do {
    [, $mail, $size] = ask($f, 'reserve');
    $reply = json_decode(stream_get_contents($f, $size + 2), true);
    ask($f, "delete $mail");
    echo $reply['Message'];
} while ($reply['Progress'] < 100);
exit($reply['ErrCode']);
