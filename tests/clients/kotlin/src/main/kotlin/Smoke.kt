package dev.roomcast.smoke

import dev.roomcast.backend.v1.ClientEventServiceGrpcKt.ClientEventServiceCoroutineImplBase
import dev.roomcast.backend.v1.HandleRequest
import dev.roomcast.backend.v1.HandleResponse
import dev.roomcast.backend.v1.emittedEvent
import dev.roomcast.backend.v1.handleResponse
import dev.roomcast.backend.v1.handledEvent
import dev.roomcast.client.v1.clientFrame
import dev.roomcast.client.v1.join
import dev.roomcast.client.v1.PresenceMode
import dev.roomcast.v1.PublishServiceGrpcKt.PublishServiceCoroutineStub
import dev.roomcast.v1.Retention
import dev.roomcast.v1.payload
import dev.roomcast.v1.publishRequest
import dev.roomcast.v1.target
import io.grpc.Grpc
import io.grpc.InsecureChannelCredentials
import io.grpc.Metadata
import java.util.UUID
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking

/** What a backend in Kotlin answers; compiled, and handled once without a gateway. */
private object Backend : ClientEventServiceCoroutineImplBase() {
    override suspend fun handle(request: HandleRequest): HandleResponse = handleResponse {
        handled = handledEvent {
            reply = payload { json = "{\"seat\": 4}" }
            emit += emittedEvent {
                targets += target { room = request.room }
                eventName = request.eventName
                payload = request.payload
                retention = Retention.RETENTION_LAST_VALUE
                excludeSender = true
            }
        }
    }
}

private class Failed(text: String) : Exception(text)

private fun must(holds: Boolean, text: String) {
    if (!holds) throw Failed(text)
}

private suspend fun checkPublish(stub: PublishServiceCoroutineStub, tenant: String): String {
    val name = "smoke-kotlin-${UUID.randomUUID()}"
    val request = publishRequest {
        this.tenant = tenant
        targets += target { room = name }
        eventName = "smoke"
        payload = payload { json = "{\"from\": \"kotlin\"}" }
        retention = Retention.RETENTION_RELIABLE
        idempotencyKey = name
    }
    // A deadline begins when it is set: one for each call.
    val within = { stub.withDeadlineAfter(60, TimeUnit.SECONDS) }
    val first = within().publish(request).resultsList.single()
    must(first.hasReached() && first.reached == 0, "an empty room answers $first")
    must(first.position.offset > 0 && first.position.epoch.isNotEmpty(), "no position: $first")
    val again = within().publish(request).resultsList.single()
    must(again.duplicate && again.position == first.position, "the repeated publish answers $again")
    must(!again.hasReached(), "a duplicate knows whom it reached: $again")
    return "reached 0 at offset ${again.position.offset}, repeated as a duplicate"
}

private suspend fun checkBackend(): String {
    val request = HandleRequest.newBuilder().setRoom("r").setEventName("take").build()
    val handled = Backend.handle(request).handled
    must(handled.reply.json == "{\"seat\": 4}", "the reply is ${handled.reply}")
    must(handled.emitList.single().eventName == "take", "emitted is ${handled.emitList}")
    val frame = clientFrame { join = join { presence = PresenceMode.PRESENCE_MODE_MEMBERS } }
    must(frame.hasJoin(), "the frame is $frame")
    return "handled with a reply and an event"
}

fun main() {
    val settings = listOf("ROOMCAST_GRPC", "ROOMCAST_TOKEN").map { name ->
        System.getenv(name).orEmpty().ifEmpty {
            System.err.println("kotlin: $name is not set; see tests/clients/README.md")
            exitProcess(1)
        }
    }
    val tenant = System.getenv("ROOMCAST_TENANT").orEmpty().ifEmpty { "default" }
    val headers = Metadata()
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer ${settings[1]}")
    val channel = Grpc.newChannelBuilder(settings[0], InsecureChannelCredentials.create()).build()
    val stub = PublishServiceCoroutineStub(channel)
        .withInterceptors(io.grpc.stub.MetadataUtils.newAttachHeadersInterceptor(headers))
    val held = runBlocking {
        try {
            println("kotlin publish: ok, ${checkPublish(stub, tenant)}")
            println("kotlin backend: ok, ${checkBackend()}")
            true
        } catch (failure: Exception) {
            System.err.println("kotlin: FAILED, ${failure.message}")
            false
        }
    }
    channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS)
    exitProcess(if (held) 0 else 1)
}
