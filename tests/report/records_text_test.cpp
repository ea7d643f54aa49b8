#include "rometrace/report/records_text.hpp"

#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "report/neuron_record.hpp"
#include "report/widest_line.hpp"

namespace rometrace::records_text_test {
namespace {

using testing::Contains;
using testing::widest_line;

TerminalStyle plain_style(int columns) {
  return {columns, false, false, true};
}

/// "Bob plays": a grid of both tokens in two layers.
TraceRecord record_of(Kind kind, std::vector<double> scores) {
  TraceRecord record;
  record.fact = FactReference{1, 1, "plays/bob", false, "plays", "sax", 1};
  record.options.kinds = {kind};
  record.prompt = {"Bob plays", "Bob", {3, 4}, {0, 1}, {0, 3}};
  record.texts.prompt = {"Bob", " plays"};
  record.texts.answer = " sax";
  record.trace.answer_ids = {9};
  record.trace.tokens = 2;
  record.trace.layers = 2;
  record.trace.high_score = 0.75;
  record.trace.low_score = 0.25;
  record.trace.grids = {{kind, 1, {0, 1}, {}, 1, scores, scores, {}, {}}};
  return record;
}

TEST_CASE("a row has the first grid's strongest cell; of states before the last token") {
  auto row = record_row(record_of(Kind::kState, {0.5, 0.25, 0.25, 0.75}));
  CHECK(row.fact == "plays/bob");
  CHECK(row.answer == " sax");
  CHECK(row.reason.empty());
  CHECK(row.kind == "state");
  CHECK(row.token == "Bob");
  CHECK(row.place == "0");
  CHECK(row.effect == 0.25);
  row = record_row(record_of(Kind::kMlp, {0.5, 0.25, 0.25, 0.75}));
  CHECK(row.token == " plays");
  CHECK(row.place == "1");
  CHECK(row.effect == 0.5);
  CHECK(record_row(record_of(Kind::kMlp, {0.25, 0.125, 0.25, 0.2})).kind.empty());
  auto noising = record_of(Kind::kMlp, {0.5, 0.25, 0.125, 0.75});
  noising.options.direction = Direction::kNoising;
  row = record_row(noising);
  CHECK(row.place == "0");
  CHECK(row.effect == 0.625);
}

TEST_CASE("of heads, knockouts and neurons a row says which") {
  auto heads = record_of(Kind::kHead, {0.25, 0.25, 0.25, 0.5});
  heads.trace.grids[0].heads = 2;
  heads.trace.grids[0].positions = {0};
  CHECK(record_row(heads).place == "1.1");
  auto knockout = record_of(Kind::kKnockout, {0.75, 0.5, 0.25, 0.75});
  knockout.trace.grids[0].positions.clear();
  knockout.trace.grids[0].groups = {{"subject", {0, 1}}, {"last", {1, 2}}};
  const auto row = record_row(knockout);
  CHECK(row.token == "last");
  CHECK(row.place == "0");
  CHECK(row.effect == 0.5);
  const auto neuron = record_row(testing::neuron_record());
  CHECK(neuron.kind == "neuron");
  CHECK(neuron.token == " Davis");
  CHECK(neuron.place == "1:3");
  CHECK(neuron.effect == 0.125);
  auto skipped = record_of(Kind::kState, {});
  skipped.verdict = Verdict::skipped(Cause::kOtherAnswer, "the model's answer is \" tuba\"");
  CHECK(record_row(skipped).reason == "skipped: the model's answer is \" tuba\"");
}

/// Rows with texts that are long, strange, or not there.
std::vector<RecordRow> rows() {
  auto bob = record_row(record_of(Kind::kState, {0.5, 0.25, 0.25, 0.75}));
  auto long_one = bob;
  long_one.fact = "a relation of a very long name/a subject\x1b[31m that is as long";
  long_one.subject = "a subject that is as long as that";
  long_one.token = " \xE6\x97\xA5\xE6\x9C\xAC and more";
  RecordRow untraced;
  untraced.fact = "plays/eve";
  untraced.subject = "Eve";
  untraced.reason = "skipped: the model's answer is another, and a long one at that";
  RecordRow nothing;
  nothing.answer = " sax";
  nothing.high = 0.5;
  nothing.low = std::numeric_limits<double>::quiet_NaN();
  return {bob, long_one, untraced, nothing};
}

TEST_CASE("a table has a line for each record, and says how many were traced") {
  const auto text = render_records(rows(), plain_style(200));
  CHECK(text == Contains("4 records: 3 traced, 1 skipped, 0 failed. Probabilities in percent; --id ID draws one.\n"));
  CHECK(text == Contains("  \"Bob\"                 0   25.00\n"));
  CHECK(text == Contains("Bob                                \" sax\"  75.00      25.00  50.00  \"Bob\""));
  CHECK(text == Contains("plays/eve "));
  CHECK(text == Contains("  skipped: the model's answer is another, and a long one at that\n"));
  CHECK(text == Contains("50.00          -      -\n"));
}

TEST_CASE("no line is wider than the terminal or holds a control character of a record's") {
  for (const int columns : {40, 50, 60, 72, 80, 100, 120, 200}) {
    for (const bool unicode : {true, false}) {
      CAPTURE(columns);
      const auto text = render_records(rows(), {columns, false, false, unicode});
      CHECK(widest_line(text) <= columns);
      std::istringstream lines(text);
      for (std::string line; std::getline(lines, line);) {
        CHECK(testing::is_one_line(line));
        CHECK_FALSE(line.ends_with(' '));
      }
      CHECK(text == Contains("50.00"));  // what a record did is there however narrow it is
    }
  }
}

TEST_CASE("the kind is told of each record only where there are several") {
  const auto state = record_row(record_of(Kind::kState, {0.5, 0.25, 0.25, 0.75}));
  const auto mlp = record_row(record_of(Kind::kMlp, {0.5, 0.25, 0.25, 0.75}));
  CHECK(render_records({state, state}, plain_style(200)) == Contains("strongest state  layer"));
  const auto mixed = render_records({state, mlp}, plain_style(200));
  CHECK(mixed == Contains("kind   strongest  layer"));
  CHECK(mixed == Contains("mlp    \" plays\"       1   50.00\n"));
}

}  // namespace
}  // namespace rometrace::records_text_test
