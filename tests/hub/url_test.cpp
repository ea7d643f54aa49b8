#include "hub/url.hpp"

#include <string>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::url_test {
namespace {

using testing::Contains;
using testing::message_of;

TEST_CASE("the addresses of a model and of its files are those of huggingface_hub") {
  CHECK(info_url("https://hub.example", "org/name", "main") == "https://hub.example/api/models/org/name/revision/main");
  CHECK(info_url("https://hub.example/at", "name", "refs/pr/1") ==
        "https://hub.example/at/api/models/name/revision/refs%2Fpr%2F1");
  CHECK(file_url("http://h:1", "org/name", "c0ffee", "a b+%.json") ==
        "http://h:1/org/name/resolve/c0ffee/a%20b%2B%25.json");
  CHECK(file_url("http://h:1", "name", "c0ffee", "folder/é") == "http://h:1/name/resolve/c0ffee/folder/%C3%A9");
}

TEST_CASE("two addresses are of one server if scheme, host and port are the same") {
  const auto same = [](const std::string& a, const std::string& b) { return origin_of(a, "x") == origin_of(b, "x"); };
  CHECK(same("https://Hub.Example/a", "https://hub.example:443/b?c"));
  CHECK(same("http://hub.example", "HTTP://hub.example:80/"));
  CHECK_FALSE(same("http://hub.example", "https://hub.example"));
  CHECK_FALSE(same("http://hub.example", "http://hub.example:8080"));
  CHECK_FALSE(same("https://hub.example", "https://hub.example.org"));
  CHECK_FALSE(same("https://hub.example", "https://user@other.example"));
  CHECK_FALSE(same("http://127.0.0.1:9", "http://localhost:9"));
  CHECK_FALSE(same("https://hub.example", "https://hub.example@other.example"));
}

TEST_CASE("an endpoint that is no web address is refused, without what may be a password") {
  for (const std::string& url :
       {std::string("hub.example"), std::string("ftp://hub.example"), std::string("https://"),
        std::string("file:///etc/passwd"), std::string(""), std::string("http://h:99999999")}) {
    CAPTURE(url);
    const std::string message = message_of<Error>([&] { origin_of(url, "HF_ENDPOINT"); });
    CHECK(message == Contains("HF_ENDPOINT is "));
    CHECK(message == Contains("expected a URL of http or https"));
  }
  CHECK(message_of<Error>([] { origin_of("ftp://me:hunter2@hub.example/?key=hunter2", "it"); }).find("hunter2") ==
        std::string::npos);
}

TEST_CASE("a redirect's place is seen from where it stands, and never from https to http") {
  CHECK(follow_location("https://h/a/b", "/c?d") == "https://h/c?d");
  CHECK(follow_location("https://h/a/b", "c") == "https://h/a/c");
  CHECK(follow_location("http://h:8/a", "//other/c") == "http://other/c");
  CHECK(follow_location("http://h/a", "https://other/c?sig=%2F") == "https://other/c?sig=%2F");
  CHECK(message_of<Error>([] { follow_location("https://h/a", "http://h/a"); }) ==
        Contains("https://h/a: redirects to http://h/a, from https to http"));
  for (const char* place : {"ftp://h/a", "file:///etc/passwd", "http://"}) {
    CAPTURE(place);
    CHECK(message_of<Error>([&] { follow_location("http://h/a", place); }) == Contains("http://h/a: "));
  }
}

TEST_CASE("messages show no user, password, query or fragment of an address") {
  CHECK(shown_url("https://me:hunter2@h/a?Signature=hunter2#hunter2") == "https://h/a");
  CHECK(shown_url("http://h:8080/a/b") == "http://h:8080/a/b");
  CHECK(shown_url("no address?key=hunter2").find("hunter2") == std::string::npos);
}

}  // namespace
}  // namespace rometrace::url_test
