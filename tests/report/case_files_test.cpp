#include "rometrace/report/case_files.hpp"

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "checks.hpp"
#include "edit/npz.hpp"
#include "files.hpp"
#include "report/neuron_record.hpp"
#include "rometrace/error.hpp"

namespace rometrace::case_files_test {
namespace {

using Json = nlohmann::ordered_json;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

/// "Bob plays": states and attention of both tokens in three layers.
TraceRecord traced_record() {
  TraceRecord record;
  record.fact = FactReference{1, 1, "12", true, "plays", "sax", 1};
  record.prompt = {"Bob plays", "Bob", {3, 40000}, {0, 1}, {0, 3}};
  record.texts.prompt = {"Bob", " plays"};
  record.texts.answer = record.texts.prediction = " sax";
  auto& trace = record.trace;
  trace.answer_ids = {9};
  trace.prediction_id = 9;
  trace.tokens = 2;
  trace.layers = 3;
  trace.high_score = 0.7;
  trace.low_score = 0.1;
  const std::vector<double> scores = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
  trace.grids = {{Kind::kAttn, 4, {0, 1}, {}, 1, scores, scores, {}, {}},
                 {Kind::kState, 1, {0, 1}, {}, 1, scores, scores, {}, {}}};
  record.options.window = 4;
  return record;
}

std::vector<std::string> names_of(const CaseFiles& cases) {
  std::vector<std::string> names;
  for (const auto& file : cases.files) names.push_back(file.name);
  return names;
}

std::string left_out(const TraceRecord& record, const Json* settings = nullptr) {
  const auto cases = case_files(record, "1", settings);
  CHECK(cases.files.empty() == !cases.left_out.empty());
  return cases.left_out;
}

TEST_CASE("each grid of a record is a file, with the fields of the reference") {
  const auto cases = case_files(traced_record(), "12", nullptr);
  CHECK(names_of(cases) == std::vector<std::string>{"knowledge_12.npz", "knowledge_12_attn.npz"});
  CHECK(cases.left_out.empty());
  const TemporaryFolder folder;
  const auto file = NpzFile::open(folder.write("case.npz", cases.files[1].bytes));
  for (const auto* name : {"scores", "low_score", "high_score", "input_ids", "input_tokens", "subject_range", "answer",
                           "window", "correct_prediction", "kind"}) {
    CHECK_MESSAGE(file.contains(name), name);
  }
  const auto scores = file.read("scores");
  CHECK(scores.sizes() == at::IntArrayRef{2, 3});
  CHECK(scores[1][2].item<double>() == double(0.6F));
  CHECK(file.read("low_score").item<double>() == 0.1);
  CHECK(file.read("high_score").item<double>() == double(0.7F));
  CHECK(file.read("window").item<std::int64_t>() == 4);
  CHECK(at::equal(file.read("input_ids"), at::tensor({3.0, 40000.0}, at::kDouble)));
  CHECK(at::equal(file.read("subject_range"), at::tensor({0.0, 1.0}, at::kDouble)));
}

TEST_CASE("a fact with another answer says so in a file for each kind that was asked for") {
  auto record = traced_record();
  record.verdict = Verdict::skipped(Cause::kOtherAnswer, "another");
  record.trace.grids.clear();
  const Json settings = {{"kinds", {"mlp", "head", "state"}}, {"positions", "all"}};
  CHECK(names_of(case_files(record, "7", &settings)) ==
        std::vector<std::string>{"knowledge_7.npz", "knowledge_7_mlp.npz"});
  const auto cases = case_files(record, "7", nullptr);
  CHECK(names_of(cases) == std::vector<std::string>{"knowledge_7.npz", "knowledge_7_mlp.npz", "knowledge_7_attn.npz"});
  const TemporaryFolder folder;
  const auto file = NpzFile::open(folder.write("case.npz", cases.files[0].bytes));
  CHECK(file.contains("correct_prediction"));
  CHECK_FALSE(file.contains("scores"));
  record.verdict.cause = Cause::kFirstToken;
  CHECK(case_files(record, "7", nullptr).files.size() == 3);
}

TEST_CASE("what the layout cannot hold is left out, with the reason") {
  CHECK(left_out(traced_record()).empty());
  auto record = traced_record();
  record.options.direction = Direction::kNoising;
  CHECK(left_out(record) == "noising");
  record = traced_record();
  record.run.engine = "gradient";
  CHECK(left_out(record) == "approximate");
  record = traced_record();
  record.trace.grids[0].positions = {1};
  CHECK(left_out(record) == "some positions alone");
  record = traced_record();
  for (auto& grid : record.trace.grids) grid.kind = Kind::kHead;
  CHECK(left_out(record) == "neither state, mlp nor attn");
  CHECK(left_out(testing::neuron_record()) == "neither state, mlp nor attn");
  record.verdict = Verdict::failed(Cause::kSubject, "no subject");
  CHECK(left_out(record) == "failed");
  record.verdict = Verdict::skipped(Cause::kNotKnown, "not known");
  CHECK(left_out(record) == "skipped, not_known");
  record.verdict = Verdict::skipped(Cause::kOtherAnswer, "another");
  Json settings = {{"kinds", {"head"}}, {"positions", "all"}};
  CHECK(left_out(record, &settings) == "neither state, mlp nor attn");
  settings = {{"kinds", {"state"}}, {"positions", "last"}};
  CHECK(left_out(record, &settings) == "some positions alone");
}

TEST_CASE("ids become names that no other id has") {
  CHECK(case_name("12", Kind::kState) == "knowledge_12.npz");
  CHECK(case_name("12", Kind::kMlp) == "knowledge_12_mlp.npz");
  CHECK(case_name("a b/c%\xC3\xA9.-_", Kind::kAttn) == "knowledge_a%20b%2Fc%25%C3%A9.-__attn.npz");
  CHECK(case_name("12_mlp", Kind::kState) == "knowledge_12%5Fmlp.npz");
  std::set<std::string> names;
  const std::vector<std::string> ids = {"1",  "1_mlp", "1_attn", "1%5Fmlp", "1_mlp_mlp",
                                        "1_", "_mlp",  "",       "a/b",     "a%2Fb"};
  for (const auto& id : ids) {
    for (const auto kind : {Kind::kState, Kind::kMlp, Kind::kAttn}) names.insert(case_name(id, kind));
  }
  CHECK(names.size() == 3 * ids.size());
  CHECK(case_name(std::string(241, 'a'), Kind::kState).size() == 255);
  CHECK(message_of<Error>([] { case_name(std::string(242, 'a'), Kind::kState); }) ==
        Contains("makes a file name of 256 bytes; expected at most 255"));
}

}  // namespace
}  // namespace rometrace::case_files_test
