#include "rometrace/report/csv_table.hpp"

#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "checks.hpp"
#include "report/neuron_record.hpp"

namespace rometrace::csv_table_test {
namespace {

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

/// "Bob plays", subject "Bob", two layers: states of both tokens.
TraceRecord small_record() {
  TraceRecord record;
  record.options.kinds = {Kind::kState};
  record.prompt = {"Bob plays", "Bob", {3, 4}, {0, 1}, {0, 3}};
  record.texts.prompt = {"Bob", " plays"};
  record.texts.answer = " sax";
  record.trace.tokens = 2;
  record.trace.layers = 2;
  record.trace.high_score = 0.75;
  record.trace.low_score = 0.25;
  record.trace.grids = {{Kind::kState, 1, {0, 1}, {}, 1, {0.5, 0.1, 0.25, 0.75}, {0.01, 0.02, 0.03, 0.04}, {}, {}}};
  return record;
}

std::vector<std::string> lines_of(TableOf what, const std::vector<TraceRecord>& records) {
  std::string text;
  CsvTable table(what, [&](std::string_view piece) { text += piece; });
  for (const auto& record : records) table.add(record, "r.jsonl", 7);
  table.finish();
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  REQUIRE(text.ends_with('\n'));
  CHECK(table.lines() + 1 == static_cast<std::int64_t>(lines.size()));
  return lines;
}

TEST_CASE("a line is a cell, with all that tells it from others") {
  const auto lines = lines_of(TableOf::kCells, {small_record()});
  const std::string place = "r.jsonl,7,,,Bob,,\" sax\",denoising,state,1,probability,\" sax\",";
  CHECK(lines == std::vector<std::string>{
                     "file,line,fact,relation,subject,object,answer,direction,kind,window,measure,target,position,"
                     "token,role,layer,head,score,effect,error,high,low",
                     place + "0,Bob,last_subject,0,,0.5,0.25,0.01,0.75,0.25",
                     place + "0,Bob,last_subject,1,,0.1,-0.15,0.02,0.75,0.25",
                     place + "1,\" plays\",last,0,,0.25,0,0.03,0.75,0.25",
                     place + "1,\" plays\",last,1,,0.75,0.5,0.04,0.75,0.25",
                 });
}

TEST_CASE("texts are quoted where they must be, and no byte is lost that is text") {
  auto record = small_record();
  record.fact = FactReference{3, 2, "a,\"b\"", false, "two\nlines", " edge", 1};
  record.prompt.subject =
      "B\xC3\xB6"
      "b";
  record.texts.prompt[0] = "\xC3";
  record.trace.grids[0].positions = {0};
  record.trace.grids[0].scores = record.trace.grids[0].standard_error = {0.5, kNoNumber};
  std::string text;
  CsvTable table(TableOf::kCells, [&](std::string_view piece) { text += piece; });
  table.add(record, "-", 1);
  table.finish();
  const std::string place =
      "-,1,\"a,\"\"b\"\"\",\"two\nlines\",B\xC3\xB6"
      "b,\" edge\",\" sax\",denoising,state,1,probability,\" sax\",0,"
      "\xEF\xBF\xBD,last_subject,";
  CHECK(text.substr(text.find('\n') + 1) == place + "0,,0.5,0.25,0.5,0.75,0.25\n" + place + "1,,,,,0.75,0.25\n");
}

TEST_CASE("an effect of noising or of a knockout is what is lost") {
  auto record = small_record();
  record.options.direction = Direction::kNoising;
  CHECK(lines_of(TableOf::kCells, {record})[2].ends_with(
      ",noising,state,1,probability,\" sax\",0,Bob,last_subject,1,,0.1,0.65,0.02,0.75,0.25"));
  record.options.direction = Direction::kDenoising;
  record.trace.grids = {{Kind::kKnockout,
                         9,
                         {},
                         {{"subject", {0, 1}}, {"last", {1, 2}}},
                         1,
                         {0.5, 0.125, 0.75, 1},
                         std::vector(4, kNoNumber),
                         {},
                         {}}};
  const auto lines = lines_of(TableOf::kCells, {record});
  REQUIRE(lines.size() == 5);
  CHECK(lines[1].ends_with(",knockout,9,probability,\" sax\",,,subject,0,,0.5,0.25,,0.75,0.25"));
  CHECK(lines[4].ends_with(",knockout,9,probability,\" sax\",,,last,1,,1,-0.25,,0.75,0.25"));
}

TEST_CASE("of both directions there are lines of each, then of their interaction, which have no score") {
  auto record = small_record();
  record.options.direction = Direction::kBoth;
  record.trace.noising = {{Kind::kState, 1, {0, 1}, {}, 1, {0.75, 0.5, 0.25, 0.25}, {0.1, 0.2, 0.3, 0.4}, {}, {}}};
  record.trace.interaction = {{{-0.25, 0.5, 1, 0}, {0.5, 0.25, kNoNumber, 0}}};
  const auto lines = lines_of(TableOf::kCells, {record});
  REQUIRE(lines.size() == 13);
  const auto tail = [](const std::string& line) { return line.substr(line.find("\" sax\",") + 7); };
  CHECK(tail(lines[1]) == "denoising,state,1,probability,\" sax\",0,Bob,last_subject,0,,0.5,0.25,0.01,0.75,0.25");
  CHECK(tail(lines[6]) == "noising,state,1,probability,\" sax\",0,Bob,last_subject,1,,0.5,0.25,0.2,0.75,0.25");
  CHECK(tail(lines[9]) == "both,state,1,probability,\" sax\",0,Bob,last_subject,0,,,-0.25,0.5,0.75,0.25");
  CHECK(tail(lines[11]) == "both,state,1,probability,\" sax\",1,\" plays\",last,0,,,1,,0.75,0.25");
}

TEST_CASE("heads are counted, layer by layer") {
  auto record = small_record();
  record.trace.grids = {{Kind::kHead, 1, {1}, {}, 2, {0.25, 0.5, 0.75, 1}, {0, 0, 0, 0}, {}, {}}};
  const auto lines = lines_of(TableOf::kCells, {record});
  REQUIRE(lines.size() == 5);
  CHECK(lines[2].ends_with(",last,0,1,0.5,0.25,0,0.75,0.25"));
  CHECK(lines[3].ends_with(",last,1,0,0.75,0.5,0,0.75,0.25"));
}

TEST_CASE("measures follow the probability, and other targets these, each with its own high and low") {
  auto record = small_record();
  record.options.measures = {Measure::kRank, Measure::kNormalised};
  record.prompt.other_targets = {9};
  record.texts.other_targets = {" drums"};
  record.trace.measured = {{{Measure::kLogitDifference, 0}, 4, 2, 0},
                           {{Measure::kRank, 0}, 1, 5, 0.5},
                           {{Measure::kProbability, 1}, 0.125, 0.5, 0}};
  auto& grid = record.trace.grids[0];
  grid.positions = {0};
  grid.scores = grid.standard_error = {0.5, 0.25};
  grid.measured = {{{3, 2}, {0.5, 0.5}}, {{3, 5}, {0.25, 0.5}}, {{0.25, 0.375}, {0.125, 0.0625}}};
  const auto lines = lines_of(TableOf::kCells, {record});
  REQUIRE(lines.size() == 9);
  const auto tail = [](const std::string& line) { return line.substr(line.find(",state,1,") + 9); };
  CHECK(tail(lines[1]) == "probability,\" sax\",0,Bob,last_subject,0,,0.5,0.25,0.5,0.75,0.25");
  CHECK(tail(lines[3]) == "rank,\" sax\",0,Bob,last_subject,0,,3,-2,0.25,1,5");
  CHECK(tail(lines[5]) == "normalised,\" sax\",0,Bob,last_subject,0,,0.5,0.5,,1,0");
  CHECK(tail(lines[7]) == "probability,\" drums\",0,Bob,last_subject,0,,0.25,-0.25,0.125,0.125,0.5");
}

TEST_CASE("neurons and their sets are tables of their own") {
  const auto record = testing::neuron_record();
  CHECK(lines_of(TableOf::kCells, {record}).size() == 1);
  const auto neurons = lines_of(TableOf::kNeurons, {record});
  const std::string place = "r.jsonl,7,,,Miles Davis,,\" trumpet\",denoising,";
  CHECK(neurons == std::vector<std::string>{
                       "file,line,fact,relation,subject,object,answer,direction,measure,target,position,token,role,"
                       "layer,neuron,score,effect,error,high,low,estimate,clean,corrupted,row_norm,promotes,suppresses",
                       place + "probability,\" trumpet\",1,\" Davis\",last_subject,1,3,0.25,0.125,0.0625,0.5,0.125,"
                               "0.125,2,-0.5,1.5,\" trumpet\",\xEF\xBF\xBD",
                       place + "probability,\" trumpet\",1,\" Davis\",last_subject,0,2,0.0625,-0.0625,0.03125,0.5,"
                               "0.125,0.0625,0.25,4,0.5,,\" sax\"",
                   });
  const auto sets = lines_of(TableOf::kSets, {record});
  REQUIRE(sets.size() == 1 + record.trace.neurons->sets.size() + record.trace.neurons->controls.size());
  CHECK(sets[0].ends_with(
      "direction,order,measure,target,position,token,role,layer,neurons,score,effect,error,high,low"));
  CHECK(sets[3] == place + "estimate,probability,\" trumpet\",1,\" Davis\",last_subject,,4,0.375,0.25,0,0.5,0.125");
  CHECK(sets[5].starts_with(place + "change,probability,"));
  CHECK(lines_of(TableOf::kNeurons, {small_record()}).size() == 1);
}

TEST_CASE("records that were not traced have no lines") {
  auto record = small_record();
  record.verdict = Verdict::skipped(Cause::kOtherAnswer, "another");
  CHECK(lines_of(TableOf::kCells, {record}).size() == 1);
}

}  // namespace
}  // namespace rometrace::csv_table_test
