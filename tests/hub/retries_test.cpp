#include "hub/retries.hpp"

#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/stopwatch.hpp"

namespace rometrace::retries_test {
namespace {

using testing::Contains;
using testing::message_of;
using Contact = TransientFailure::Contact;

constexpr double kSoon = 1e-4;  // seconds

/// How often an attempt that always fails so is made.
int tries_of(const TransientFailure& failure) {
  int tries = 0;
  Retries retries(kSoon, {}, {});
  message_of<Error>([&] {
    retry(retries, [&] {
      ++tries;
      throw failure;
    });
  });
  return tries;
}

TEST_CASE("six tries are made, three where nobody answers") {
  CHECK(tries_of({"x", Contact::kMade}) == 6);
  CHECK(tries_of({"x", Contact::kNone}) == 3);
}

TEST_CASE("progress begins the count anew, and an answer once makes for patience later") {
  int tries = 0;
  Retries retries(kSoon, {}, {});
  const std::string message = message_of<Error>([&] {
    retry(retries, [&] {
      if (++tries <= 8) retries.made_progress();
      throw TransientFailure("h: broke", tries == 1 ? Contact::kMade : Contact::kNone);
    });
  });
  CHECK(tries == 8 + 5);
  CHECK(message == "h: broke (tried 6 times); run it again later: it goes on where it stopped");
}

TEST_CASE("nobody to be reached is said with what to look at") {
  Retries retries(kSoon, {}, {});
  const std::string message =
      message_of<Error>([&] { retry(retries, [] { throw TransientFailure("no route", Contact::kNone); }); });
  CHECK(message == Contains("no route (tried 3 times); check the network, the proxy (https_proxy) and HF_ENDPOINT"));
}

TEST_CASE("each pause is told, lasts as long as the server asks for, and not for ever") {
  std::vector<std::string> notes;
  Retries retries(kSoon, [&](const std::string& note) { notes.push_back(note); }, {});
  const Stopwatch watch;
  retries.wait_after({"busy", Contact::kMade, 0.05});
  CHECK(watch.seconds() >= 0.05);
  CHECK(notes == std::vector<std::string>{"busy; trying again in less than a second"});
  CHECK(message_of<Error>([&] {
          retries.wait_after({"busy", Contact::kMade, 3600});
        }) == Contains("busy; the server asks to wait for 60 minutes"));
}

TEST_CASE("a pause ends at once when it is interrupted") {
  std::stop_source stop;
  Retries retries(
      60, [&](const std::string&) { stop.request_stop(); }, stop.get_token());
  const Stopwatch watch;
  CHECK_THROWS_AS(retries.wait_after({"busy", Contact::kMade}), Interrupted);
  CHECK(watch.seconds() < 10);
}

}  // namespace
}  // namespace rometrace::retries_test
