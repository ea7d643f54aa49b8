#include "rometrace/model/checkpoint.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "text/mapping.hpp"

namespace rometrace::checkpoint_test {
namespace {

using nlohmann::json;
using testing::bytes_of;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

/// A safetensors file put together tensor by tensor.
class FileBuilder {
 public:
  FileBuilder& add(const std::string& name, const char* dtype, std::vector<std::int64_t> shape,
                   const std::string& data) {
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + data.size()}}};
    data_ += data;
    return *this;
  }
  /// The header is filled up with spaces so that the data begin `shift` bytes after a multiple of 8, as a rule 0.
  std::string bytes(std::size_t shift = 0) const {
    std::string header = header_.dump();
    while (header.size() % 8 != shift) header += ' ';
    return testing::safetensors_bytes(header, data_);
  }

 private:
  json header_ = json::object();
  std::string data_;
};

std::string one_float(const std::string& name) {
  return FileBuilder().add(name, "F32", {1}, bytes_of<float>({1})).bytes();
}

std::vector<double> values(const at::Tensor& tensor) {
  const at::Tensor doubles = tensor.to(at::kDouble).contiguous();
  return {doubles.const_data_ptr<double>(), doubles.const_data_ptr<double>() + doubles.numel()};
}

std::string refusal(const std::filesystem::path& folder) {
  std::string message = message_of<Error>([&] { Checkpoint::open(folder); });
  CHECK(testing::is_one_line(message));
  return message;
}

/// Resident memory of this process, bytes, of one kind (a line of /proc/self/status).
std::int64_t resident_bytes(const std::string& kind) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == kind) {
      std::int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return 0;
}

TEST_CASE("the halves of a matrix in MXFP4 are one tensor") {
  const TemporaryFolder folder;
  std::string blocks;  // a row of all codes in order, twice, and one of 2 and 7 in turn
  for (int i = 0; i < 16; ++i) blocks += static_cast<char>(0x10 * ((2 * i + 1) % 16) + 2 * i % 16);
  blocks += std::string(16, '\x72');
  const std::string scales = {'\x7f', '\x7c'};  // 2^0, 2^-3
  folder.write("model.safetensors", FileBuilder()
                                        .add("m_blocks", "U8", {2, 1, 16}, blocks)
                                        .add("m_scales", "U8", {2, 1}, scales)
                                        .add("other_blocks", "F32", {1}, bytes_of<float>({5}))
                                        .bytes());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.names() == std::vector<std::string>{"m", "other_blocks"});
  const std::vector<double> codes = {0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6};
  std::vector<double> expected = codes, second;
  expected.insert(expected.end(), codes.begin(), codes.end());
  for (int i = 0; i < 16; ++i) second.insert(second.end(), {1.0 / 8, 6.0 / 8});
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    CHECK(values(checkpoint.rows("m", {2, 32}, dtype, 1, 2)) == second);
    auto both = expected;
    both.insert(both.end(), second.begin(), second.end());
    CHECK(values(checkpoint.tensor("m", {2, 32}, dtype)) == both);
  }
  CHECK_THROWS_AS(checkpoint.tensor("m", {32, 2}, at::kFloat), Error);
  checkpoint.prefetch("m");
  checkpoint.release("m", 0, 1);
  checkpoint.release("m");
  CHECK(values(checkpoint.rows("m", {2, 32}, at::kFloat, 0, 1)) == expected);
}

TEST_CASE("a tensor in the file's dtype is a view that outlives the checkpoint") {
  const TemporaryFolder folder;
  folder.write("model.safetensors", FileBuilder().add("a", "F32", {2, 2}, bytes_of<float>({1, 2, 3, 4})).bytes());
  at::Tensor first;
  at::Tensor second;
  {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    first = checkpoint.tensor("a", {2, 2}, at::kFloat);
    second = checkpoint.tensor("a", {2, 2}, at::kFloat);
  }
  CHECK(first.const_data_ptr() == second.const_data_ptr());
  CHECK(first.sizes() == at::IntArrayRef({2, 2}));
  CHECK(values(first) == std::vector<double>{1, 2, 3, 4});
}

TEST_CASE("a tensor that the file does not align is copied, with the same values") {
  const TemporaryFolder folder;
  const FileBuilder builder = std::move(FileBuilder().add("a", "F32", {3}, bytes_of<float>({1, -2, 3})));
  for (std::size_t shift = 0; shift < 8; ++shift) {
    folder.write("model.safetensors", builder.bytes(shift));
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    const at::Tensor tensor = checkpoint.tensor("a", {3}, at::kFloat);
    CHECK(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % alignof(float) == 0);
    CHECK(values(tensor) == std::vector<double>{1, -2, 3});
    CHECK(values(checkpoint.tensor("a", {3}, at::kDouble)) == std::vector<double>{1, -2, 3});
  }
}

TEST_CASE("every floating-point dtype is read as every other, rounded to nearest") {
  const TemporaryFolder folder;
  // 1, -2, 0.333.., the largest finite half: bit patterns of each format.
  folder.write("model.safetensors",
               FileBuilder()
                   .add("f16", "F16", {4}, bytes_of<std::uint16_t>({0x3C00, 0xC000, 0x3555, 0x7BFF}))
                   .add("bf16", "BF16", {4}, bytes_of<std::uint16_t>({0x3F80, 0xC000, 0x3EAB, 0x7F7F}))
                   .add("f32", "F32", {4}, bytes_of<float>({1.0F, -2.0F, 1.0F / 3.0F, 65504.0F}))
                   .add("f64", "F64", {4}, bytes_of<double>({1.0, -2.0, 1.0 / 3.0, 65504.0}))
                   .bytes());
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(values(checkpoint.tensor("f16", {4}, at::kDouble)) == std::vector<double>{1, -2, 0.333251953125, 65504});
  CHECK(values(checkpoint.tensor("bf16", {4}, at::kFloat)) ==
        std::vector<double>{1, -2, 0.333984375, 3.3895313892515355e38});
  CHECK(values(checkpoint.tensor("f64", {4}, at::kFloat)) == std::vector<double>{1, -2, 1.0F / 3.0F, 65504});
  CHECK(values(checkpoint.tensor("f32", {4}, at::kDouble)) == std::vector<double>{1, -2, 1.0F / 3.0F, 65504});
  CHECK(values(checkpoint.tensor("f32", {4}, at::kHalf)) == std::vector<double>{1, -2, 0.333251953125, 65504});
  CHECK(values(checkpoint.tensor("f64", {4}, at::kBFloat16)) == std::vector<double>{1, -2, 0.333984375, 65536});
  const bool is_as_asked = checkpoint.tensor("f16", {4}, at::kFloat).scalar_type() == at::kFloat;
  CHECK(is_as_asked);
}

TEST_CASE("scalars and tensors without elements are read") {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               FileBuilder().add("s", "F32", {}, bytes_of<float>({5})).add("e", "F16", {0, 3}, "").bytes());
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(values(checkpoint.tensor("s", {}, at::kFloat)) == std::vector<double>{5});
  CHECK(values(checkpoint.tensor("s", {}, at::kDouble)) == std::vector<double>{5});
  CHECK(checkpoint.tensor("e", {0, 3}, at::kHalf).numel() == 0);
  CHECK(checkpoint.tensor("e", {0, 3}, at::kFloat).sizes() == at::IntArrayRef({0, 3}));
}

TEST_CASE("converting a large tensor holds the result and little of the file") {
  const TemporaryFolder folder;
  constexpr std::int64_t kCount = 48'000'000;
  const std::string half(2 * kCount, '\x3c');
  folder.write("model.safetensors", FileBuilder().add("a", "BF16", {kCount}, half).bytes());
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  const std::int64_t file_before = resident_bytes("RssFile:");
  const at::Tensor tensor = checkpoint.tensor("a", {kCount}, at::kFloat);
  // 96 MB were read. What may be left is the part pages between steps, and code of libtorch that ran for the first
  // time.
  CHECK(resident_bytes("RssFile:") - file_before < 32'000'000);
  CHECK(tensor[0].item<double>() == tensor[kCount - 1].item<double>());
}

TEST_CASE("long readings are left where that is asked for, short ones are not") {
  const TemporaryFolder folder;
  constexpr std::int64_t kCount = 3'000'000;
  const std::string zeros(2 * kCount, '\0');
  folder.write("model.safetensors", FileBuilder()
                                        .add("a", "BF16", {kCount}, zeros)
                                        .add("b", "BF16", {kCount}, zeros)
                                        .add("c", "F16", {1}, "ab")
                                        .bytes());
  std::stop_source stop;
  const Checkpoint checkpoint = Checkpoint::open(folder.path(), stop.get_token());
  CHECK(checkpoint.tensor("a", {kCount}, at::kFloat).numel() == kCount);
  CHECK(checkpoint.equal("a", "b"));
  stop.request_stop();
  CHECK_THROWS_AS(checkpoint.tensor("a", {kCount}, at::kFloat), Interrupted);
  CHECK_THROWS_AS(checkpoint.equal("a", "b"), Interrupted);
  CHECK(checkpoint.tensor("c", {1}, at::kFloat).numel() == 1);
}

TEST_CASE(
    "a file that becomes shorter while it is used is an error with both sizes, and its name is known by address") {
  const TemporaryFolder folder;
  const auto file =
      folder.write("model.safetensors", FileBuilder()
                                            .add("a", "F32", {2}, bytes_of<float>({1, 2}))
                                            .add("b", "F16", {2}, bytes_of<std::uint16_t>({0x3C00, 0xC000}))
                                            .bytes());
  const auto size = std::filesystem::file_size(file);
  const void* address = nullptr;
  {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    address = checkpoint.tensor("a", {2}, at::kFloat).const_data_ptr();
    const char* found = mapped_file_at(address);
    REQUIRE(found != nullptr);
    CHECK(std::string(found) == file.string());
    CHECK(mapped_file_at(&size) == nullptr);
    CHECK_NOTHROW(checkpoint.check_whole("b"));
    std::filesystem::resize_file(file, size - 1);
    const auto expected = file.string() + ": was cut short while it was used: " + std::to_string(size) +
                          " bytes when it was opened, " + std::to_string(size - 1) +
                          " now; let the file be while rometrace runs, and begin again";
    for (const char* name : {"a", "b"}) {
      CHECK(message_of<InputLost>([&] { checkpoint.tensor(name, {2}, at::kFloat); }) == expected);
      CHECK(message_of<InputLost>([&] { checkpoint.check_whole(name); }) == expected);
    }
  }
  CHECK(mapped_file_at(address) == nullptr);
}

TEST_CASE("a request that the file does not meet names tensor, found and expected") {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               FileBuilder().add("a", "F32", {2, 1}, bytes_of<float>({1, 2})).add("mask", "U8", {4}, "1234").bytes());
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.contains("a"));
  CHECK_FALSE(checkpoint.contains("b"));
  CHECK(checkpoint.names() == std::vector<std::string>{"a", "mask"});
  const auto ask = [&](const char* name, const std::vector<std::int64_t>& shape) {
    return message_of<Error>([&] { checkpoint.tensor(name, shape, at::kFloat); });
  };
  CHECK(ask("b", {1}) == Contains("model.safetensors: no tensor \"b\""));
  CHECK(ask("a", {1, 2}) == Contains("model.safetensors: tensor \"a\" has shape [2,1]; expected [1,2]"));
  CHECK(ask("a", {}) == Contains("has shape [2,1]; expected []"));
  CHECK(ask("mask", {4}) == Contains("tensor \"mask\" is of dtype U8; expected F32, F16, BF16 or F64"));
}

TEST_CASE("shards that an index names are one checkpoint") {
  const TemporaryFolder folder;
  folder.write("model-2.safetensors", one_float("b"));
  folder.write("model-1.safetensors", one_float("a"));
  folder.write("model.safetensors.index.json",
               json{{"weight_map", {{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}}}}.dump());
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.names() == std::vector<std::string>{"a", "b"});
  CHECK(checkpoint.files() ==
        std::vector{folder.path() / "model-1.safetensors", folder.path() / "model-2.safetensors"});
  CHECK(values(checkpoint.tensor("b", {1}, at::kFloat)) == std::vector<double>{1});
  CHECK(message_of<Error>([&] { checkpoint.tensor("c", {1}, at::kFloat); }) ==
        folder.path().string() + ": no tensor \"c\"");
}

TEST_CASE("the single file counts where there is an index beside it") {
  const TemporaryFolder folder;
  folder.write("model.safetensors", one_float("a"));
  folder.write("model.safetensors.index.json", "not read");
  CHECK(Checkpoint::open(folder.path()).files() == std::vector{folder.path() / "model.safetensors"});
}

TEST_CASE("files that are links, as in a cache, are followed") {
  const TemporaryFolder folder;
  folder.write("blobs/1234", one_float("a"));
  std::filesystem::create_directories(folder.path() / "snapshots/c");
  std::filesystem::create_symlink("../../blobs/1234", folder.path() / "snapshots/c/model.safetensors");
  CHECK(Checkpoint::open(folder.path() / "snapshots/c").contains("a"));
  std::filesystem::remove(folder.path() / "blobs/1234");
  CHECK(refusal(folder.path() / "snapshots/c") == Contains("model.safetensors: is a link to a file that is missing"));
}

TEST_CASE("a folder without safetensors is refused with what it holds instead") {
  const TemporaryFolder folder;
  CHECK(refusal(folder.path()) == Contains("no weights: expected model.safetensors, pytorch_model.bin or the index"));
  folder.write("adapter_model.safetensors", "x");
  CHECK(refusal(folder.path()) == Contains("holds adapter_model.safetensors, but no model.safetensors or pytorch_m"));
  folder.write("pytorch_model-00002-of-00003.bin", "x");
  CHECK(refusal(folder.path()) ==
        Contains("holds \"pytorch_model-00002-of-00003.bin\", but no model.safetensors.index.json or "
                 "pytorch_model.bin.index.json, which would say what the parts are; get the whole folder"));
  CHECK(refusal(folder.path() / "none") == Contains("none: not a folder"));
}

TEST_CASE("safetensors count where there are PyTorch files beside them") {
  const TemporaryFolder folder;
  const std::filesystem::path fixtures = ROMETRACE_SOURCE_DIR "/tests/fixtures/torch";
  const auto only_file = [&] { return Checkpoint::open(folder.path()).files().back().filename().string(); };
  std::filesystem::copy(fixtures / "sharded", folder.path());
  CHECK(only_file() == "pytorch_model-00002-of-00002.bin");
  std::filesystem::copy(fixtures / "zip_2.bin", folder.path() / "pytorch_model.bin");
  CHECK(only_file() == "pytorch_model.bin");
  folder.write("m1", one_float("a"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"m1"}})");
  CHECK(only_file() == "m1");
  folder.write("model.safetensors", one_float("a"));
  CHECK(only_file() == "model.safetensors");
}

TEST_CASE("weights of PyTorch files come out row-major, whatever their order in the file") {
  const std::filesystem::path fixtures = ROMETRACE_SOURCE_DIR "/tests/fixtures/torch";
  for (const char* name : {"zip_2.bin", "zip_3.bin", "zip_4.bin", "zip_5.bin", "old_2.bin", "old_4.bin"}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    std::filesystem::copy(fixtures / name, folder.path() / "pytorch_model.bin");
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    const auto read = [&](const char* tensor, const std::vector<std::int64_t>& shape) {
      const at::Tensor result = checkpoint.tensor(tensor, shape, at::kFloat);
      CHECK(result.is_contiguous());
      return values(result);
    };
    const std::vector<double> halves = {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5};
    for (const char* dtype : {"float32", "float16", "bfloat16", "float64"}) CHECK(read(dtype, {2, 3}) == halves);
    CHECK(read("transposed", {4, 3}) == std::vector<double>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
    CHECK(read("row", {4}) == std::vector<double>{4, 5, 6, 7});
    CHECK(read("column", {3}) == std::vector<double>{2, 6, 10});
    CHECK(read("every_other", {2, 2}) == std::vector<double>{1, 3, 9, 11});
    CHECK(read("same", {3, 4}) == read("whole", {3, 4}));
    CHECK(read("parameter", {2}) == std::vector<double>{1, -1});
    CHECK(read("scalar", {}) == std::vector<double>{7.25});
    CHECK(read("empty", {0, 3}).empty());
    CHECK(values(checkpoint.tensor("transposed", {4, 3}, at::kDouble))[1] == 4);
    CHECK(message_of<Error>([&] {
            read("expanded", {2, 3});
          }) == Contains("pytorch_model.bin: tensor \"expanded\" has more elements than its bytes hold"));
    CHECK(message_of<Error>([&] { read("int64", {2, 3}); }) == Contains("is of dtype I64; expected F32, F16, BF16"));
    CHECK_FALSE(checkpoint.contains("steps"));
  }
}

TEST_CASE("shards of PyTorch files, of both formats, are one checkpoint") {
  const std::filesystem::path fixtures = ROMETRACE_SOURCE_DIR "/tests/fixtures/torch/sharded";
  const Checkpoint checkpoint = Checkpoint::open(fixtures);
  CHECK(checkpoint.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(values(checkpoint.tensor("b", {1, 2}, at::kFloat)) == std::vector<double>{3, 4});
  CHECK(values(checkpoint.tensor("c", {2}, at::kFloat)) == std::vector<double>{5, 6});

  const TemporaryFolder folder;
  std::filesystem::copy(fixtures / "pytorch_model.bin.index.json", folder.path());
  std::filesystem::copy(fixtures / "pytorch_model-00001-of-00002.bin", folder.path());
  CHECK(refusal(folder.path()) == Contains("pytorch_model-00002-of-00002.bin: no such file"));
}

TEST_CASE("an index that does not fit its shards is refused") {
  const TemporaryFolder folder;
  folder.write("s1", one_float("a"));
  folder.write("s2", one_float("b"));
  folder.write("s3", one_float("a"));
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"[]", "index.json: has no weight_map"},
      {"{}", "index.json: has no weight_map"},
      {R"({"weight_map":[]})", "index.json: has no weight_map"},
      {R"({"weight_map":{}})", "weight_map names no tensors"},
      {R"({"weight_map":{"a":1}})", "tensor \"a\" is in 1; expected the name of a file in the same folder"},
      {R"({"weight_map":{"a":"../s1"}})", "tensor \"a\" is in \"../s1\"; expected the name of a file"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "expected the name of a file in the same folder"},
      {R"({"weight_map":{"a":".."}})", "expected the name of a file in the same folder"},
      {R"({"weight_map":{"a":""}})", "expected the name of a file in the same folder"},
      {R"({"weight_map":{"a":"s1\u0000"}})", "expected the name of a file in the same folder"},
      {R"({"weight_map":{"a":"s9"}})", "s9: no such file"},
      {R"({"weight_map":{"a":"s2","b":"s1"}})", "tensor \"a\" is not in \"s2\", where the index says"},
      {R"({"weight_map":{"a":"s1","b":"s3"}})", "s3: holds tensor \"a\", and so does s1; expected each in one file"},
  };
  for (const auto& [index, expected] : cases) {
    CAPTURE(index);
    folder.write("model.safetensors.index.json", index);
    CHECK(refusal(folder.path()) == Contains(expected));
  }
}

TEST_CASE("a tensor of the index that no shard has is missed when it is needed") {
  const TemporaryFolder folder;
  folder.write("s1", one_float("a"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"s1","b":"s1"}})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.names() == std::vector<std::string>{"a"});
  CHECK(message_of<Error>([&] { checkpoint.tensor("b", {1}, at::kFloat); }) ==
        Contains("no tensor \"b\", which the index says is in \"s1\"; get both files again"));
}

TEST_CASE("the names of PyTorch's wrappers are no part of a tensor's") {
  const TemporaryFolder folder;
  const auto names = [&](const std::vector<std::string>& written) {
    FileBuilder builder;
    for (const auto& name : written) builder.add(name, "F32", {1}, bytes_of<float>({1}));
    folder.write("model.safetensors", builder.bytes());
    return Checkpoint::open(folder.path()).names();
  };
  using Names = std::vector<std::string>;
  CHECK(names({"module.a", "module.b"}) == Names{"a", "b"});
  CHECK(names({"module.a", "b"}) == Names{"b", "module.a"});  // of a model that has a part of this name
  CHECK(names({"_orig_mod.a", "b._orig_mod.c"}) == Names{"a", "b.c"});
  CHECK(names({"_orig_mod.module.a", "module._orig_mod.b"}) == Names{"a", "b"});
  CHECK(names({"h._fsdp_wrapped_module.0._checkpoint_wrapped_module.w"}) == Names{"h.0.w"});
  CHECK(names({"an_orig_mod.a"}) == Names{"an_orig_mod.a"});
  CHECK(message_of<Error>([&] { names({"_orig_mod.a", "a"}); }) == Contains("is there twice, as \"a\" too"));
}

TEST_CASE("a trained model's weights are read, and those of its PyTorch file are the same") {
  const std::filesystem::path folder = ROMETRACE_SOURCE_DIR "/../shared/models/gpt2-lyrics";
  if (testing::is_absent(folder)) return;
  const Checkpoint checkpoint = Checkpoint::open(folder);
  CHECK(checkpoint.names().size() == 61);
  const at::Tensor head = checkpoint.tensor("lm_head.weight", {1000, 128}, at::kFloat);
  CHECK(at::equal(head, checkpoint.tensor("transformer.wte.weight", {1000, 128}, at::kFloat)));

  const TemporaryFolder copy;
  std::filesystem::create_symlink(folder / "pytorch_model.bin", copy.path() / "pytorch_model.bin");
  const Checkpoint torch_file = Checkpoint::open(copy.path());
  CHECK(torch_file.names() == checkpoint.names());
  CHECK(at::equal(head, torch_file.tensor("lm_head.weight", {1000, 128}, at::kFloat)));
}

}  // namespace
}  // namespace rometrace::checkpoint_test
