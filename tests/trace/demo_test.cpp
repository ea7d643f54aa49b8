// The demo model that rometrace ships, from text to grid, against transformers (tests/judge/make_goldens.py --demo).

#include <ATen/core/grad_mode.h>

#include <filesystem>

#include "checks.hpp"
#include "closeness.hpp"
#include "golden_models.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/model/fingerprint.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/sigma.hpp"
#include "rometrace/trace/sweep.hpp"

namespace rometrace::demo_test {
namespace {

using testing::Closeness;

const std::filesystem::path kRoot = ROMETRACE_SOURCE_DIR;
const std::filesystem::path kDemo = kRoot / "share/rometrace/demo";

nlohmann::json demo_golden() {
  return testing::read_golden(kRoot / "tests/goldens/demo.json");
}

TEST_CASE("the demo golden belongs to the demo model that is shipped") {
  const std::vector<std::filesystem::path> files = {kDemo / "model.safetensors"};
  CHECK(weights_sha256(files) == demo_golden().at("model_sha256"));
}

TEST_CASE("sigma of s3 over the shipped facts is the reference's, digit for digit") {
  const auto model = Decoder::load(kDemo);
  const auto deviation =
      subject_embedding_std(*model, Tokenizer::load(kDemo), read_subjects(kRoot / "share/rometrace/facts.json"));
  // float32 sums over a million elements: the order of additions may differ from one libtorch to the next.
  CHECK(3 * deviation == doctest::Approx(demo_golden().at("noise").at("sigma").get<double>()).epsilon(1e-7));
}

TEST_CASE("demo prompts become the same tokens, subjects and grids as with transformers") {
  const at::NoGradGuard no_grad;
  const auto tokenizer = Tokenizer::load(kDemo);
  const auto model = Decoder::load(kDemo, at::kDouble);
  const auto golden = demo_golden();
  for (const auto& fact : golden.at("facts")) {
    const std::string text = fact.at("prompt");
    CAPTURE(text);
    const auto tokens = tokenizer.encode(text);
    TracePrompt prompt{text, fact.at("subject"), {}, find_subject(tokens, text, fact.at("subject").get<std::string>())};
    for (const auto& token : tokens) prompt.token_ids.push_back(token.id);
    CHECK(nlohmann::json(prompt.token_ids) == fact.at("token_ids"));

    // Float64 on both sides: only the order of additions differs.
    Closeness close_logits({1e-9, 1e-9}), close_scores({1e-9, 1e-12});
    const auto hidden = model->forward(prompt.token_ids, 1);
    const auto logits = model->logits(hidden[0][hidden.size(1) - 1]).contiguous();
    for (std::size_t v = 0; v < fact.at("logits").size(); ++v) {
      close_logits.compare("logit [" + std::to_string(v) + "]", logits.data_ptr<double>()[v], fact.at("logits")[v]);
    }
    close_logits.check();
    for (const auto& expected : fact.at("traces")) {
      const nlohmann::json range = {prompt.subject_range.begin, prompt.subject_range.end};
      CHECK(range == expected.at("subject_range"));
      const auto options = testing::golden_options(expected);
      const auto trace = trace_sweep(*model, prompt, options, run_clean(*model, prompt, options)).trace;
      CHECK(trace.answer_id() == expected.at("answer_id"));
      close_scores.compare("high_score", trace.high_score, expected.at("high_score"));
      close_scores.compare("low_score", trace.low_score, expected.at("low_score"));
      std::size_t index = 0;
      for (const auto& row : expected.at("scores")) {
        for (const double score : row)
          close_scores.compare("cell " + std::to_string(index), trace.grids[0].scores.at(index), score), ++index;
      }
    }
    close_scores.check();
  }
}

}  // namespace
}  // namespace rometrace::demo_test
