#include "cli/options/option_values.hpp"

#include "checks.hpp"
#include "files.hpp"

namespace rometrace::option_values_test {
namespace {

TEST_CASE("an option's errors begin with its name, and what ends the work passes as it is") {
  using cli::named;
  CHECK(testing::message_of<Error>([] { named("--text", []() -> int { throw Error("is empty"); }); }) ==
        "--text: is empty");
  CHECK_THROWS_AS(named("--text", []() -> int { throw Interrupted(); }), Interrupted);
  CHECK_THROWS_AS(named("--text", []() -> int { throw InputLost("cut short"); }), InputLost);
  CHECK(named("--text", [] { return 3; }) == 3);
}

}  // namespace
}  // namespace rometrace::option_values_test
