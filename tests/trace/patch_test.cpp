#include "rometrace/trace/patch.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::patch_test {
namespace {

using testing::Contains;
using testing::message_of;

TracePrompt a_prompt(std::size_t tokens, TokenRange subject) {
  TracePrompt prompt;
  prompt.token_ids.assign(tokens, 1);
  prompt.subject_range = subject;
  return prompt;
}

DecoderConfig a_config(std::int64_t layers, std::int64_t heads) {
  DecoderConfig config;
  config.layers = layers;
  config.heads = heads;
  return config;
}

std::vector<std::string> groups(const TracePrompt& prompt) {
  TraceOptions options;
  std::vector<std::string> texts;
  for (const auto& group : empty_grid(Kind::kKnockout, prompt, options, a_config(2, 1), Trace()).groups) {
    texts.push_back(std::string(group.name) + " " + std::to_string(group.keys.begin) + "-" +
                    std::to_string(group.keys.end));
  }
  return texts;
}

TEST_CASE("rules of positions are read, and read back") {
  for (const char* text : {"all", "subject", "subject-last", "last", "0", "0,3,12"}) {
    CHECK(to_string(PositionRule::parse(text)) == text);
  }
  CHECK(to_string(PositionRule::parse("3,1,3")) == "1,3");
  for (const char* text : {"", "first", "1,", ",1", "-1", "1;2", "1.5", "99999999999999999999"}) {
    CHECK(message_of<Error>([&] { PositionRule::parse(text); }) == Contains("names no positions; expected all"));
  }
}

TEST_CASE("grids have the rows of their positions, and only what can change is run") {
  const auto prompt = a_prompt(6, {2, 4});
  const auto config = a_config(3, 2);
  TraceOptions options;
  options.kinds = {Kind::kState, Kind::kHead};
  const auto positions = [&](const char* rule) {
    options.positions = PositionRule::parse(rule);
    return empty_grid(Kind::kState, prompt, options, config, Trace()).positions;
  };
  CHECK(positions("all") == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5});
  CHECK(cells_of(prompt, options, config).size() == 4 * 3 * 3);
  CHECK(positions("subject") == std::vector<std::int64_t>{2, 3});
  CHECK(positions("subject-last") == std::vector<std::int64_t>{3});
  CHECK(positions("last") == std::vector<std::int64_t>{5});
  CHECK(positions("1,4") == std::vector<std::int64_t>{1, 4});
  const auto cells = cells_of(prompt, options, config);
  REQUIRE(cells.size() == 3 + 3 * 2);  // position 1 is not run
  CHECK(cells.front().index == 3);
  CHECK(cells.back().index == 2 * 3 * 2 - 1);
  CHECK(cells.back().patch.changes.front().head == 1);
  CHECK(message_of<Error>([&] { positions("1,6"); }) ==
        Contains("position 6 is not in the prompt, whose 6 tokens are at 0 to 5"));
}

TEST_CASE("groups of a knockout are disjoint, the last position apart") {
  CHECK(groups(a_prompt(6, {2, 4})) == std::vector<std::string>{"subject 2-4", "before 0-2", "after 4-5", "last 5-6"});
  CHECK(groups(a_prompt(6, {0, 6})) == std::vector<std::string>{"subject 0-5", "last 5-6"});
  CHECK(groups(a_prompt(6, {5, 6})) == std::vector<std::string>{"before 0-5", "last 5-6"});
  CHECK(groups(a_prompt(1, {0, 1})).empty());
}

TEST_CASE("a severed state's outputs are held above its layer") {
  TraceOptions options;
  options.kinds = {Kind::kStateAttnSevered};
  const auto cells = cells_of(a_prompt(2, {0, 1}), options, a_config(3, 1));
  REQUIRE(cells.size() == 6);
  const auto& middle = cells[1].patch.changes;
  REQUIRE(middle.size() == 2);
  CHECK(middle[0].site == Site::kState);
  CHECK(middle[1].site == Site::kAttn);
  CHECK(middle[1].source == Change::Source::kBase);
  CHECK(middle[1].layers == LayerRange{2, 3});
  CHECK(cells[2].patch.changes.size() == 1);  // nothing above the last layer
}

}  // namespace
}  // namespace rometrace::patch_test
