#include "hub/model_files.hpp"

#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::model_files_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;
using Names = std::vector<std::string>;

std::string refusal(const Names& names) {
  std::string message = message_of<Error>([&] { choose_model_files(names, "org/name"); });
  CHECK(testing::is_one_line(message));
  return message;
}

TEST_CASE("of a repository's files config, tokeniser and the first form of the weights are wanted") {
  const auto chosen =
      choose_model_files({"README.md", "config.json", "flax_model.msgpack", "generation_config.json", "merges.txt",
                          "model.safetensors", "onnx/config.json", "onnx/model.safetensors", "pytorch_model.bin",
                          "tokenizer.json", "tokenizer_config.json", "vocab.json", "training_args.bin"},
                         "org/name");
  CHECK(chosen.files == Names{"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                              "model.safetensors", "config.json"});
  CHECK_FALSE(chosen.index.has_value());
}

TEST_CASE("weights are taken whole before in shards, and as safetensors before pickles") {
  Names names = {"config.json", "tokenizer.json", "pytorch_model.bin.index.json"};
  for (const char* better : {"pytorch_model.bin", "model.safetensors.index.json", "model.safetensors"}) {
    const auto before = choose_model_files(names, "x");
    names.emplace_back(better);
    const auto after = choose_model_files(names, "x");
    CAPTURE(better);
    CHECK(before.files != after.files);
    CHECK(after.files == Names{"tokenizer.json", better, "config.json"});
    CHECK(after.index.has_value() == std::string(better).ends_with(".index.json"));
  }
}

TEST_CASE("what cannot be traced is refused before it is fetched") {
  CHECK(
      refusal({"config.json", "tokenizer.json", "a-Q4.gguf"}) ==
      "org/name: has weights such as \"a-Q4.gguf\" only; expected model.safetensors or pytorch_model.bin, whole or in "
      "shards");
  CHECK(refusal({"config.json", "tokenizer.json", "adapter_model.bin"}) == Contains("\"adapter_model.bin\" only"));
  CHECK(refusal({"config.json", "tokenizer.json", "sub/model.safetensors"}) ==
        Contains("\"sub/model.safetensors\" only"));
  CHECK(refusal({"config.json", "tokenizer.json", "README.md"}) == Contains("has no weights; expected"));
  CHECK(refusal({"tokenizer.json", "model.safetensors"}) == Contains("has no config.json"));
  CHECK(refusal({"config.json", "model.safetensors", "merges.txt"}) == Contains("has no tokeniser"));
  CHECK(refusal({}) == Contains("has no config.json"));
}

TEST_CASE("an index names its shards, in its own folder only") {
  const TemporaryFolder folder;
  const auto index = [&](const std::string& text) { return folder.write("index.json", text); };
  CHECK(shards_of(index(R"({"weight_map": {"b": "2.bin", "a": "1.bin", "c": "2.bin"}})")) == Names{"1.bin", "2.bin"});
  for (const char* shard : {R"("../../x")", R"("/etc/passwd")", R"("")", R"("..")", R"("a/b")", "7", R"("a\u0000b")"}) {
    CAPTURE(shard);
    const auto file = index(std::string(R"({"weight_map": {"a": )") + shard + "}}");
    CHECK(message_of<Error>([&] { shards_of(file); }) == Contains("expected the name of a file in the same folder"));
  }
  CHECK(message_of<Error>([&] { shards_of(index("{}")); }) == Contains("has no weight_map"));
  CHECK(message_of<Error>([&] { shards_of(index(R"({"weight_map": {}})")); }) == Contains("names no tensors"));
}

TEST_CASE("weights that a link leads nowhere to are missing, whatever other weights are there") {
  const TemporaryFolder folder;
  for (const char* name : {"config.json", "tokenizer.json", "pytorch_model.bin"}) folder.write(name, "x");
  CHECK(is_complete(folder.path()));
  std::filesystem::create_symlink("../../blobs/gone", folder.path() / "model.safetensors");
  CHECK_FALSE(is_complete(folder.path()));
}

TEST_CASE("a snapshot is complete when nothing of its model is missing") {
  const TemporaryFolder folder;
  const auto add = [&](const std::string& name, const std::string& text = "x") { folder.write("s/" + name, text); };
  const auto complete = [&] { return is_complete(folder.path() / "s"); };
  CHECK_FALSE(complete());
  add("config.json");
  add("vocab.json");
  add("model.safetensors.index.json", R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  add("1.safetensors");
  CHECK_FALSE(complete());
  add("merges.txt");
  CHECK_FALSE(complete());
  std::filesystem::create_symlink("../blobs/gone", folder.path() / "s/2.safetensors");
  CHECK_FALSE(complete());
  CHECK(message_of<Error>([&] { check_complete(folder.path() / "s"); }) ==
        (folder.path() / "s/2.safetensors").string() + " is missing");
  folder.write("blobs/gone", "x");
  CHECK(complete());
}

}  // namespace
}  // namespace rometrace::model_files_test
