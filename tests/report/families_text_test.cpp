#include "rometrace/report/families_text.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "checks.hpp"
#include "rometrace/model/config.hpp"
#include "widest_line.hpp"

namespace rometrace::families_text_test {
namespace {

using testing::Contains;

TEST_CASE("every name that is told is a model_type whose config is read, and told once") {
  std::set<std::string> names;
  for (const auto& family : known_families()) {
    CHECK_FALSE(family.checkpoints.empty());
    for (const auto name : family.names) {
      CAPTURE(name);
      CHECK(names.emplace(name).second);
      const auto config =
          parse_config(nlohmann::json{{"model_type", name}, {"text_config", {{"x", 1}}}}.dump(), "here");
      CHECK(to_string(config.family) == family.names.front());
    }
  }
  CHECK(names.size() >= 30);
}

TEST_CASE("families are told in lines no wider than asked for") {
  const std::vector<KnownFamily> two = {
      {{"one", "other"}, "One, and Other", "all that there is", "embed_tokens"},
      {{"third"}, "A Third", "what is so long that it does not fit in a line of sixty columns", "wte"}};
  CHECK(render_families(two, 60) ==
        "one, other: One, and Other\n"
        "  all that there is; the subject is corrupted at\n"
        "  embed_tokens\n"
        "third: A Third\n"
        "  what is so long that it does not fit in a line of sixty\n"
        "  columns; the subject is corrupted at wte\n");
  CHECK(testing::widest_line(render_families(known_families(), 100)) <= 100);
  CHECK(testing::widest_line(render_families(known_families(), 1)) <= 60);
}

}  // namespace
}  // namespace rometrace::families_text_test
