<?php
// PHP's own sessions, which are files of one worker's disk unless something else is set.
session_start();
switch ($_SERVER['REQUEST_METHOD'] . ' ' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case 'GET /':
        echo 'welcome';
        break;
    case 'POST /sign-in':
        $_SESSION['name'] = $_POST['name'];
        header('Location: /me', true, 303);
        break;
    default:
        http_response_code(isset($_SESSION['name']) ? 200 : 401);
        echo isset($_SESSION['name']) ? 'hello ' . $_SESSION['name'] : 'sign in first';
}
