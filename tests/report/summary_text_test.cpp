#include "rometrace/report/summary_text.hpp"

#include <sstream>

#include "checks.hpp"
#include "files.hpp"
#include "report/widest_line.hpp"
#include "rometrace/report/summary_json.hpp"
#include "rometrace/text/json_line.hpp"
#include "summary/summary_lines.hpp"

namespace rometrace::summary_text_test {
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
    const auto text = render_summary(example(), {columns, false, false, true});
    CHECK(widest_line(text) <= columns);
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
      CAPTURE(line);
      CHECK(is_one_line(line));
      CHECK_FALSE(line.ends_with(' '));
    }
  }
}

TEST_CASE("a summary tells gaps with their caveat, heads, and knockouts") {
  auto line = whole_line(3, {2, 4});
  line["knockout"]["groups"]["subject"]["relative_change"] = {-1, 2.5};
  const auto text = render_summary(summary_of({whole_line(1, {2, 4}), whole_line(2, {2}), line}), kPlain);
  CHECK(text == Contains("\nhead: one attention head's output restored at one layer\n"));
  CHECK(text == Contains("  last subject token         3    6.00  [  6.00,   6.00]  1.0      100 %\n"));
  CHECK(text == Contains("\nstate_mlp_severed: the block's output, MLP severed, restored at one layer\n"));
  CHECK(text == Contains("Strongest head: last token, layer 1, head 0: brings back 10 %"));
  CHECK(text.find("Strongest state_mlp") == std::string::npos);
  CHECK(text == Contains("\ngap: what severing a path takes off the state's effect, last subject token\n"));
  // A quarter and a half of 12.5 + 6 %: 4.625 and 9.25.
  CHECK(text == Contains("\n  MLP severed                3    4.6"));
  CHECK(text == Contains("\n  attention severed          3    9.25  [  9.25,   9.25]    1      100 %\n"));
  CHECK(text == Contains("\nA peak of tracing does not tell where editing works best (arXiv 2301.04213).\n"));
  CHECK(text == Contains("\nknockout: attention to these tokens cut in 9 layers around each layer, in %\n"));
  // -1.5 / 3 at layer 0 is as strong as (2.5 - 0.5 - 0.5) / 3 at layer 1: the first of equals.
  CHECK(text == Contains("\n  subject                    3   -50.00  [-100.00, -25.00]      0\n"));
  CHECK(text == Contains("\n  before the subject         0\n"));
  CHECK(text == Contains("\n  last token                 3   -50.00  [-50.00, -50.00]       1\n"));
  CHECK(widest_line(text) <= 80);
}

TEST_CASE("the settings in words name direction, corruption, precision and approximation") {
  auto line = traced_line(1);
  line["run"].update({{"direction", "noising"},
                      {"approximate", true},
                      {"corruption", {{"method", "zero"}}},
                      {"noise", nullptr},
                      {"precision", {{"asked", 0.01}, {"reached", 0.005}}}});
  const auto text = render_summary(summary_of({line}), {200, false, false, true});
  CHECK(text == Contains("corruption zero, draws up to a standard error of 0.01, seed 1, float32, noising (corrupted "
                         "values in the clean run), by gradients: an approximation\n"));
  CHECK(text == Contains("state: the block's output corrupted at one layer\n"));
  CHECK(text == Contains("Strongest state before the last token: first subject token, layer 0: takes away 60.5 %"));
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

TEST_CASE("the JSON of a summary has lists by head, gaps and knockouts only where they were traced") {
  const auto overall = to_json(summary_of({whole_line(1, {2, 4}), whole_line(2, {2})}))["overall"];
  const auto& head = overall["kinds"]["head"];
  CHECK(head["heads"] == 2);
  const auto& role = head["roles"]["last_subject"];
  for (const auto* name : {"score", "aie", "standard_error", "normal_low", "bootstrap_high"}) {
    CAPTURE(name);
    REQUIRE(role[name].size() == 2);
    CHECK(role[name][1].size() == 2);
  }
  CHECK(role["peak"]["head"] == 0);
  CHECK(head["roles"]["last"]["standard_error"].is_null());
  CHECK_FALSE(overall["kinds"]["state"].contains("heads"));
  const auto names = [](const nlohmann::ordered_json& object) {
    std::string all;
    for (const auto& [name, value] : object.items()) all += name + " ";
    return all;
  };
  CHECK(names(overall["kinds"]) == "state head state_mlp_severed state_attn_severed ");
  CHECK(names(overall["gaps"]) == "mlp attn ");
  CHECK(names(overall["gaps"]["mlp"]["roles"]["last_subject"]) ==
        "facts tokens aie standard_error normal_low normal_high bootstrap_low bootstrap_high peak ");
  CHECK(names(overall["knockout"]["groups"]) == "subject before after last ");
  CHECK(overall["knockout"]["groups"]["subject"]["relative_change"].dump() == "[-0.25,-0.5]");
  CHECK(overall["knockout"]["groups"]["after"]["bootstrap_low"].is_null());
  const auto plain = to_json(example())["overall"];
  CHECK_FALSE(plain.contains("gaps"));
  CHECK_FALSE(plain.contains("knockout"));
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

}  // namespace rometrace::summary_text_test
