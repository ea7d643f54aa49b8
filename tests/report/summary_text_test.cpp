#include "rometrace/report/summary_text.hpp"

#include <sstream>

#include "checks.hpp"
#include "files.hpp"
#include "report/display_text.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/summary_json.hpp"
#include "study/summary_lines.hpp"

namespace rometrace {
namespace {

using namespace testing;

const TerminalStyle kPlain = {80, false, false, true};

SummaryResult summary_of(const std::vector<Json>& lines, const SummaryConfig& config = {true, 100, 1}) {
  Summary summary(config);
  const TemporaryFolder folder;
  SummaryReader reader(folder.write("results.jsonl", as_text(lines)).string());
  SummaryLine line;
  while (reader.next(line)) summary.add(line);
  summary.end_file(reader);
  auto result = summary.result();
  result.files = {"results.jsonl"};
  return result;
}

SummaryResult example() {
  auto strange = traced_line(3, 6, 1, 4);
  strange["fact"]["relation"] = "a relation of a very long name\x1b[31m";
  return summary_of({header_line(5), traced_line(1), traced_line(2, 6, 0, 2), strange,
                     untraced_line(4, "skipped", "other_answer"), untraced_line(5, "failed", "record")});
}

}  // namespace

TEST_CASE("a summary says what was counted, and the means in percent") {
  const auto text = render_summary(example(), kPlain);
  CHECK(text == Contains("5 facts in results.jsonl: 3 traced, 1 skipped, 1 failed\n"));
  CHECK(text == Contains("other_answer 1, record 1"));
  CHECK(text == Contains("  total effect (ATE)      62.50  [ 62.50,  62.50]\n"));
  CHECK(text == Contains("\nmlp: the MLP's output restored in 10 layers around each layer\n"));
  // The last subject token is token 2, 1 and 3: (6 + 4 + 8) / 3 at layer 1.
  CHECK(text == Contains("  last subject token         3    6.00  ["));
  CHECK(text == Contains("]    1      100 %\n"));
  CHECK(text == Contains("Strongest state before the last token: further tokens, layer 1: brings back 9 %"));
  CHECK(text == Contains("a relation of a ve"));
}

TEST_CASE("no line of a summary is wider than the terminal or holds a control character of a file's") {
  for (const int columns : {80, 100}) {
    std::istringstream lines(render_summary(example(), {columns, false, false, true}));
    std::string line;
    while (std::getline(lines, line)) {
      CAPTURE(line);
      CHECK(is_one_line(line));
      CHECK(columns_of(line) <= columns);
      CHECK_FALSE(line.ends_with(' '));
    }
  }
}

TEST_CASE("a summary without traces says so") {
  const auto text = render_summary(summary_of({untraced_line(1, "failed", "subject")}), kPlain);
  CHECK(text == Contains("No fact was traced"));
  CHECK(text.find("layer") == std::string::npos);
}

TEST_CASE("a summary of one fact has means without intervals") {
  const auto text = render_summary(summary_of({traced_line(1)}), kPlain);
  CHECK(text == Contains("  last token                 1   10.00                      1\n"));
  CHECK(text == Contains("  middle subject tokens      0\n"));
}

TEST_CASE("a terminal without Unicode gets ASCII") {
  auto summary = example();
  summary.files = {"r\u00e9sultats.jsonl"};
  summary.relations[0].first = "une relation \u00e9trange et longue";
  for (const char c : render_summary(summary, {80, false, false, false})) REQUIRE(static_cast<unsigned char>(c) < 0x80);
}

TEST_CASE("the JSON of a summary has null where there is nothing, and a group for each relation") {
  const auto json = to_json(example());
  const auto& overall = json["overall"];
  const auto& roles = overall["kinds"]["state"]["roles"];
  CHECK(json["schema"] == "rometrace/summary/1");
  CHECK(json["status"].dump() == R"({"traced":3,"skipped":1,"failed":1})");
  CHECK(overall["total_effect"]["mean"] == 0.625);
  CHECK(roles["middle_subject"]["facts"] == 1);
  CHECK(roles["middle_subject"]["standard_error"].is_null());
  CHECK(roles["last"]["aie"].size() == 2);
  CHECK(roles["last"]["peak"]["layers"].dump() == "[1,1]");
  CHECK(json["by"]["relation"].size() == 2);  // of the traced facts
  CHECK(to_line(json).find("nan") == std::string::npos);
  CHECK_FALSE(to_json(summary_of({traced_line(1)}, {false, 10, 1})).contains("by"));
}

}  // namespace rometrace
