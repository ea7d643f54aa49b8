#include "cli/window_note.hpp"

#include "checks.hpp"

namespace rometrace::cli {
namespace {

Options of_kinds(std::vector<Kind> kinds) {
  Options options;
  options.kinds = std::move(kinds);
  return options;
}

TEST_CASE("the advised window is a fifth of the layers up to the next odd number") {
  CHECK(advised_window(1) == 1);
  CHECK(advised_window(5) == 1);
  CHECK(advised_window(6) == 3);
  CHECK(advised_window(8) == 3);
  CHECK(advised_window(12) == 3);
  CHECK(advised_window(15) == 3);
  CHECK(advised_window(16) == 5);
  CHECK(advised_window(24) == 5);
  CHECK(advised_window(28) == 7);
  CHECK(advised_window(48) == 11);
}

TEST_CASE("it is narrower than every default that it stands in for") {
  for (std::int64_t layers = 2; layers < 3 * 10; ++layers) {
    CAPTURE(layers);
    CHECK(advised_window(layers) < (layers < 3 * 9 ? 9 : 10));
  }
}

TEST_CASE("a default window is noted from the layer on at which it covers more than a third") {
  for (const auto kind : {Kind::kMlp, Kind::kAttn}) {
    const auto options = of_kinds({Kind::kState, kind});
    CHECK(window_note(options, 8) ==
          "the default --window 10 covers more than a third of the model's 8 layers, which blurs them; "
          "--window 3 shows more");
    CHECK(window_note(options, 29));
    CHECK_FALSE(window_note(options, 30));
    CHECK(window_note(options, 2));
    CHECK_FALSE(window_note(options, 1));  // all windows are one
  }
  const auto knockout = of_kinds({Kind::kKnockout});
  CHECK(window_note(knockout, 26) ==
        "the default --knockout-window 9 covers more than a third of the model's 26 layers, which blurs them; "
        "--knockout-window 7 shows more");
  CHECK_FALSE(window_note(knockout, 27));
}

TEST_CASE("two windows are one note") {
  CHECK(window_note(of_kinds({Kind::kMlp, Kind::kKnockout}), 12) ==
        "the defaults --window 10 and --knockout-window 9 cover more than a third of the model's 12 layers, which "
        "blurs them; --window 3 and --knockout-window 3 show more");
}

TEST_CASE("kinds without a window, and windows that were given, are not noted") {
  CHECK_FALSE(window_note(of_kinds({Kind::kState, Kind::kStateMlpSevered, Kind::kHead}), 8));
  auto options = of_kinds({Kind::kMlp, Kind::kKnockout});
  options.window_given = true;
  CHECK(window_note(options, 8)->starts_with("the default --knockout-window 9 covers"));
  options.knockout_window_given = true;
  CHECK_FALSE(window_note(options, 8));
}

}  // namespace
}  // namespace rometrace::cli
