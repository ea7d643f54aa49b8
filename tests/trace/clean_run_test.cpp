#include "rometrace/trace/clean_run.hpp"

#include <ATen/core/grad_mode.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"

namespace rometrace::clean_run_test {
namespace {

/// Sets one number of a tensor in a safetensors file of 32-bit floats.
void set_number(const std::filesystem::path& path, const std::string& tensor, std::size_t index, float value) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  const std::size_t begin = header.at(tensor).at("data_offsets").at(0);
  std::memcpy(&bytes[8 + length + begin + 4 * index], &value, sizeof value);
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST_CASE("weights that are no numbers are noticed, wherever they stand") {
  const testing::RandomModel shape;
  struct Place {
    const char* tensor;
    std::size_t index;
  };
  const auto D = static_cast<std::size_t>(shape.width);
  for (const auto& [tensor, index] :
       {Place{"transformer.h.0.attn.c_attn.weight", 0},    // of a query
        Place{"transformer.h.1.attn.c_attn.weight", D},    // of a key
        Place{"transformer.h.1.attn.c_attn.bias", 2 * D},  // of a value
        Place{"transformer.h.0.mlp.c_proj.weight", 3}, Place{"transformer.ln_f.bias", 1}}) {
    for (const auto value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      CAPTURE(tensor);
      CAPTURE(value);
      const testing::TemporaryFolder folder;
      std::mt19937 engine(5);
      testing::write_random_model(folder, shape, engine);
      set_number(folder.path() / "model.safetensors", tensor, index, value);
      TracePrompt prompt;
      prompt.token_ids = {1, 2, 3, 4};
      prompt.subject_range = {1, 2};
      const auto model = Decoder::load(folder.path());
      CHECK(testing::message_of<Error>([&] { run_clean(*model, prompt, {}); }) ==
            testing::Contains("output for this prompt is NaN or infinite"));
    }
  }
}

TEST_CASE("what prompts are answered side by side is what each is answered alone: the most probable tokens") {
  const at::NoGradGuard no_grad;
  const testing::TemporaryFolder folder;
  std::mt19937 engine(11);
  testing::write_random_model(folder, {}, engine);
  const auto model = Decoder::load(folder.path(), at::kDouble);
  const std::vector<std::vector<std::int32_t>> texts = {{1, 2, 3}, {3, 2, 1}, {9, 9, 9}, {0, 4, 8}, {7, 5, 10}};
  const std::vector<std::int64_t> most = {4, 1, 0, 14, 6};
  std::vector<TracePrompt> prompts(texts.size());
  std::vector<const TracePrompt*> pointers;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    prompts[i].token_ids = texts[i];
    pointers.push_back(&prompts[i]);
  }
  for (const std::int32_t last : {-1, 2, 6}) {  // no token ends an answer; this one does
    CAPTURE(last);
    const auto ends = [&](std::int32_t id) { return id == last; };
    const auto answers = greedy_answers(*model, pointers, most, ends);
    REQUIRE(answers.size() == texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(i);
      auto ids = texts[i];
      std::vector<std::int32_t> expected;
      while (static_cast<std::int64_t>(expected.size()) < most[i]) {
        const auto next = model->logits(model->forward(ids, 1)[0])[-1].argmax().item<std::int32_t>();
        if (!expected.empty() && ends(next)) break;
        expected.push_back(next);
        ids.push_back(next);
      }
      CHECK(answers[i] == expected);
    }
  }
  const std::vector<std::int64_t> too_many = {4, 1, 0, 15, 6};
  const char* refusal = "the prompt has 3 tokens and the answer up to 15; this model takes 17 together";
  CHECK(testing::message_of<Error>([&] { greedy_answers(*model, pointers, too_many, [](auto) { return false; }); }) ==
        refusal);
  CHECK_NOTHROW(greedy_answers(*model, pointers, too_many, [](auto) { return true; }));  // it ends before
  prompts[3].target.assign(15, 1);
  CHECK(testing::message_of<Error>([&] { run_clean(*model, prompts[3], {}); }) ==
        "the prompt has 3 tokens and the answer 15; this model takes 17 together");
  prompts[3].target.pop_back();
  CHECK_NOTHROW(run_clean(*model, prompts[3], {}));
  prompts[3].token_ids[1] = 11;
  CHECK(testing::message_of<Error>([&] { greedy_answers(*model, pointers, most, [](auto) { return false; }); }) ==
        testing::Contains("token id 11 is outside the model's vocabulary of 11"));
}

}  // namespace
}  // namespace rometrace::clean_run_test
