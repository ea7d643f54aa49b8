#include "rometrace/model/decoder.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "checks.hpp"
#include "closeness.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "rometrace/error.hpp"

namespace rometrace::decoder_test {
namespace {

using testing::Closeness;
using testing::golden_models;
using testing::Tolerance;

void compare_logits(at::ScalarType dtype, Tolerance tolerance) {
  const at::NoGradGuard no_grad;
  for (const auto& golden : golden_models()) {
    CAPTURE(golden.name);
    Closeness closeness(tolerance);
    const auto model = Decoder::load(golden.folder, dtype);
    for (const auto& example : golden.golden.at("logits")) {
      const std::vector<std::int32_t> ids = example.at("token_ids");
      const auto logits = model->logits(model->forward(ids, 1))[0].to(at::kDouble).contiguous();
      const auto& expected = example.at("logits");
      REQUIRE(static_cast<std::size_t>(logits.size(0)) == expected.size());
      for (std::size_t t = 0; t < expected.size(); ++t) {
        const auto* row = logits.data_ptr<double>() + static_cast<std::int64_t>(t) * logits.size(1);
        for (std::size_t v = 0; v < expected[t].size(); ++v) {
          closeness.compare("logit [" + std::to_string(t) + "][" + std::to_string(v) + "]", row[v], expected[t][v]);
        }
      }
    }
    closeness.check();
  }
}

TEST_CASE("logits in float64 are those of transformers in float64") {
  // Only the order of additions differs; gelu_fast's constant is rounded to ten digits by transformers.
  compare_logits(at::kDouble, {1e-9, 1e-9});
}

TEST_CASE("logits in float32 are those of transformers in float64 up to float32's rounding") {
  // A logit is a sum of terms of order 1 to 10: single rounding errors are 1e-6, and near-zero sums keep them whole.
  compare_logits(at::kFloat, {1e-5, 2e-5});
}

TEST_CASE("a CPU that does not multiply in bfloat16 is told so, and one that does is not") {
  const at::NoGradGuard no_grad;
  const auto golden = golden_models().front();
  const std::vector<std::int32_t> ids = golden.golden.at("logits")[0].at("token_ids");
  LoadOptions how;
  for (const auto dtype : {at::kBFloat16, at::kFloat, at::kDouble}) {
    how.dtype = dtype;
    how.processor.multiplies_bfloat16 = true;
    const auto logits = [&] {
      const auto model = Decoder::load(golden.folder, how);
      return model->logits(model->forward(ids, 1));
    };
    const auto expected = logits();
    CHECK(expected.isfinite().all().item<bool>());
    how.processor.multiplies_bfloat16 = false;
    if (dtype == at::kBFloat16) {
      CHECK(testing::message_of<Error>(logits) ==
            "this CPU does not multiply in bfloat16 (it has no AVX-512); expected float32 or float64");
    } else {
      CHECK(logits().equal(expected));
    }
  }
}

TEST_CASE("rotary positions that turn by no finite angle are refused, and the message names the file") {
  std::ifstream file(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models/llama/config.json");
  const auto config = nlohmann::json::parse(file);
  const nlohmann::json yarn = {{"type", "yarn"}, {"factor", 2.0}, {"attention_factor", 1e300}};
  const std::vector<nlohmann::json> cases = {
      {{"rope_theta", 1e-300}}, {{"rope_scaling", {{"type", "linear"}, {"factor", 1e-300}}}}, {{"rope_scaling", yarn}}};
  for (const auto& changes : cases) {
    CAPTURE(changes.dump());
    auto changed = config;
    changed.update(changes);
    const testing::TemporaryFolder folder;
    folder.write("config.json", changed.dump());
    std::filesystem::copy(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models/llama/model.safetensors",
                          folder.path());
    CHECK(testing::message_of<Error>([&] { Decoder::load(folder.path()); }) ==
          testing::Contains("config.json: its rotary positions turn by angles that are not finite"));
  }
}

TEST_CASE("rows of a batch are computed alike") {
  const at::NoGradGuard no_grad;
  const auto golden = golden_models().front();
  const auto model = Decoder::load(golden.folder, at::kDouble);
  const std::vector<std::int32_t> ids = golden.golden.at("logits")[0].at("token_ids");
  const auto one = model->forward(ids, 1);
  const auto many = model->forward(ids, 7);
  CHECK((many - one).abs().max().item<double>() < 1e-12);
}

TEST_CASE("prompts that run side by side give the last states that each gives alone") {
  const at::NoGradGuard no_grad;
  const auto golden = golden_models().front();
  const auto model = Decoder::load(golden.folder, at::kDouble);
  const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3}, {3, 2, 1}, {2, 2, 2}};
  std::vector<std::int32_t> all;
  for (const auto& prompt : prompts) all.insert(all.end(), prompt.begin(), prompt.end());
  const auto together = model->forward_prompts(all, 3).select(1, 0);
  REQUIRE(together.sizes() == at::IntArrayRef({3, model->config().width}));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = model->forward(prompts[i], 1)[0][2];
    CHECK((together[static_cast<std::int64_t>(i)] - alone).abs().max().item<double>() < 1e-12);
  }
  CHECK((together[0] - together[1]).abs().max().item<double>() > 1e-3);
}

TEST_CASE("a tap sees every site once a layer, in the order of the computation, and what it writes counts") {
  const at::NoGradGuard no_grad;
  const auto golden = golden_models().front();
  const auto model = Decoder::load(golden.folder);
  const std::vector<std::int32_t> ids = golden.golden.at("logits")[0].at("token_ids");
  std::vector<std::pair<Site, std::int64_t>> seen, expected = {{Site::kEmbedding, 0}};
  for (std::int64_t layer = 0; layer < model->config().layers; ++layer) {
    for (const auto site : {Site::kMixed, Site::kAttn, Site::kMlpHidden, Site::kMlpProduct, Site::kMlp, Site::kState}) {
      expected.emplace_back(site, layer);
    }
  }
  const auto T = static_cast<std::int64_t>(ids.size());
  model->forward(ids, 2, [&](Site site, std::int64_t layer, at::Tensor& value) {
    seen.emplace_back(site, layer);
    const auto& config = model->config();
    CHECK(value.sizes() == at::IntArrayRef({2, T, site == Site::kMlpHidden ? config.mlp_width : config.width}));
  });
  const bool in_order = seen == expected;  // doctest cannot print these
  CHECK(in_order);

  const auto plain = model->forward(ids, 1);
  const auto changed = model->forward(ids, 1, [](Site site, std::int64_t, at::Tensor& value) {
    if (site == Site::kMlp) value.mul_(2);
  });
  CHECK((plain - changed).abs().max().item<float>() > 1e-3);
}

#ifndef __SANITIZE_ADDRESS__  // which ends the program at an absurd allocation, whatever libtorch would do
TEST_CASE("an allocation that fails is an exception, not the end of the program") {
  // It was abort() while SentencePiece's flag of the same name lay over libtorch's (see src/CMakeLists.txt).
  CHECK_THROWS_AS(at::empty({std::int64_t{1} << 50}, at::kByte), c10::Error);
}
#endif

TEST_CASE("weights that the config has no use for are refused by name, buffers are not") {
  const testing::TemporaryFolder folder;
  const auto with = [&](const char* model, const nlohmann::json& changes) {
    const auto golden = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models" / model;
    auto config = testing::read_golden(golden / "config.json");
    config.update(changes);
    folder.write("config.json", config.dump());
    std::filesystem::copy_file(golden / "model.safetensors", folder.path() / "model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    return testing::message_of<Error>([&] { Decoder::load(folder.path()); });
  };
  CHECK(with("llama", {{"num_hidden_layers", 1}}) ==
        testing::Contains("holds tensor \"model.layers.1.input_layernorm.weight\", for which config.json has no use"));
  CHECK(with("qwen2", {{"model_type", "llama"}, {"architectures", {"LlamaForCausalLM"}}}) ==
        testing::Contains("self_attn.k_proj.bias\", for which config.json has no use (llama, 2 layers)"));
  CHECK_NOTHROW(Decoder::load(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models/old_buffers"));
  CHECK_NOTHROW(Decoder::load(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/models/gptj_old_buffers"));
}

TEST_CASE("a prompt the model cannot take is refused") {
  const auto model = Decoder::load(golden_models().front().folder);
  const auto& config = model->config();
  CHECK_THROWS_AS(model->forward(std::vector<std::int32_t>(), 1), Error);
  CHECK_THROWS_AS(model->forward(std::vector<std::int32_t>(static_cast<std::size_t>(config.max_positions) + 1, 0), 1),
                  Error);
  CHECK_THROWS_AS(model->forward(std::vector<std::int32_t>{static_cast<std::int32_t>(config.vocab_size)}, 1), Error);
  CHECK_THROWS_AS(model->forward(std::vector<std::int32_t>{-1}, 1), Error);
  const std::vector<std::int32_t> three = {1, 2, 3};
  CHECK_THROWS_AS(model->forward_prompts(three, 0), Error);
  CHECK_THROWS_AS(model->forward_prompts(three, 2), Error);
  CHECK_THROWS_AS(model->forward_prompts({}, 1), Error);
  CHECK_THROWS_AS(model->forward_prompts(three, config.max_positions + 1), Error);
}

}  // namespace
}  // namespace rometrace::decoder_test
