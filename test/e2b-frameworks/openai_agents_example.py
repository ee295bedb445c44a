"""OpenAI Agents SDK: a sandbox agent on E2B, with a scripted model."""
from agents import Model, ModelResponse, Runner, Usage
from agents.extensions.sandbox.e2b import E2BSandboxClient, E2BSandboxClientOptions, E2BSandboxType
from agents.run import RunConfig
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.entries import File
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class Scripted(Model):
    turn = 0
    seen = ""

    async def get_response(self, system_instructions, input, *_, **__):
        self.turn += 1
        if self.turn == 1:
            arguments = '{"cmd": "cat README.md; id -un"}'
            call = ResponseFunctionToolCall(arguments=arguments, call_id="1", name="exec_command", type="function_call")
            return ModelResponse(output=[call], usage=Usage(), response_id=None)
        text = "read the workspace: " + str("Hello from the workspace" in str(input))
        part = ResponseOutputText(text=text, annotations=[], type="output_text", logprobs=[])
        message = ResponseOutputMessage(id="2", content=[part], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


agent = SandboxAgent(
    name="Workspace Assistant",
    instructions="Inspect the sandbox workspace before answering.",
    model=Scripted(),
    default_manifest=Manifest(entries={"README.md": File(content=b"Hello from the workspace\n")}),
)
client = E2BSandboxClient()
options = E2BSandboxClientOptions(sandbox_type=E2BSandboxType.E2B)
config = RunConfig(sandbox=SandboxRunConfig(client=client, options=options), tracing_disabled=True)
print("answer:", Runner.run_sync(agent, "What does the README say?", run_config=config).final_output)
